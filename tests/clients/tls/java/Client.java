import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import yandex.cloud.api.clouddesktop.v1.DesktopImageOuterClass.DesktopImage;
import yandex.cloud.api.clouddesktop.v1.DesktopImageServiceGrpc;
import yandex.cloud.api.clouddesktop.v1.DesktopImageServiceOuterClass.CopyDesktopImageMetadata;
import yandex.cloud.api.clouddesktop.v1.DesktopImageServiceOuterClass.CopyDesktopImageRequest;
import yandex.cloud.api.clouddesktop.v1.DesktopImageServiceOuterClass.DeleteDesktopImageRequest;
import yandex.cloud.api.clouddesktop.v1.DesktopImageServiceOuterClass.GetDesktopImageRequest;
import yandex.cloud.api.clouddesktop.v1.DesktopImageServiceOuterClass.ListDesktopImagesRequest;
import yandex.cloud.api.compute.v1.ImageServiceGrpc;
import yandex.cloud.api.compute.v1.ImageServiceOuterClass.GetImageRequest;
import yandex.cloud.api.endpoint.ApiEndpointServiceGrpc;
import yandex.cloud.api.endpoint.ApiEndpointServiceOuterClass.ListApiEndpointsRequest;
import yandex.cloud.api.operation.OperationOuterClass.Operation;
import yandex.cloud.api.operation.OperationServiceGrpc;
import yandex.cloud.sdk.ServiceFactory;
import yandex.cloud.sdk.auth.Auth;
import yandex.cloud.sdk.auth.provider.CredentialProvider;
import yandex.cloud.sdk.utils.OperationUtils;

/**
 * Does the main job with the public Java SDK, by discovery. Environment: TLS_ENDPOINT, host:port; COMPUTE_IMAGE_ID;
 * TOKEN, or KEY_FILE, the key of a service account. The JVM's trust store has the authority of the server: the SDK takes no other setting.
 */
public class Client {
    public static void main(String[] arguments) throws Exception {
        String endpoint = System.getenv("TLS_ENDPOINT");
        String source = System.getenv("COMPUTE_IMAGE_ID");
        String folder = "java-" + UUID.randomUUID();
        String keyFile = System.getenv("KEY_FILE");
        CredentialProvider.Builder credentials = keyFile == null
                ? Auth.iamTokenBuilder().token(System.getenv("TOKEN"))
                : Auth.apiKeyBuilder().fromFile(Path.of(keyFile)).cloudIAMEndpoint(endpoint);
        ServiceFactory factory = ServiceFactory.builder()
                .endpoint(endpoint)
                .credentialProvider(credentials)
                .requestTimeout(Duration.ofSeconds(30))
                .build();
        Map<String, String> addresses = new TreeMap<>();
        factory.create(ApiEndpointServiceGrpc.ApiEndpointServiceBlockingStub.class, ApiEndpointServiceGrpc::newBlockingStub)
                .list(ListApiEndpointsRequest.getDefaultInstance())
                .getEndpointsList()
                .forEach(found -> addresses.put(found.getId(), found.getAddress()));
        check(addresses.keySet().toString().equals("[clouddesktops, compute, endpoint, iam, operation]"), addresses);

        // What the SDK itself knows is found by discovery.
        var compute = factory.create(ImageServiceGrpc.ImageServiceBlockingStub.class, ImageServiceGrpc::newBlockingStub);
        check(compute.get(GetImageRequest.newBuilder().setImageId(source).build()).getId().equals(source), source);
        var operations = factory.create(
                OperationServiceGrpc.OperationServiceBlockingStub.class, OperationServiceGrpc::newBlockingStub);

        // The SDK knows no stubs of desktop images: they get a channel of their own.
        ManagedChannel channel = ManagedChannelBuilder.forTarget(addresses.get("clouddesktops")).build();
        var images = factory.create(channel, DesktopImageServiceGrpc::newBlockingStub);
        Operation copying = images.copy(CopyDesktopImageRequest.newBuilder()
                .setFolderId(folder).setName("x").setImageId(source).putLabels("one", "1").build());
        String imageId = copying.getMetadata().unpack(CopyDesktopImageMetadata.class).getImageId();
        Operation copied = OperationUtils.wait(operations, copying, Duration.ofSeconds(60), Duration.ofMillis(50));
        check(copied.getDone() && copied.hasResponse(), copied);
        check(copied.getResponse().unpack(DesktopImage.class).getId().equals(imageId), copied);
        var page = images.list(ListDesktopImagesRequest.newBuilder()
                .setFolderId(folder).setFilter("name=\"x\"").setPageSize(1).build());
        check(page.getDesktopImagesCount() == 1 && page.getDesktopImages(0).getId().equals(imageId), page);
        DesktopImage image = images.get(GetDesktopImageRequest.newBuilder().setImageId(imageId).build());
        check("1".equals(image.getLabelsMap().get("one")), image);
        try {
            images.get(GetDesktopImageRequest.newBuilder().setImageId("nothing").build());
            check(false, "an unknown image was found");
        } catch (StatusRuntimeException refused) {
            check(refused.getStatus().getCode() == Status.Code.NOT_FOUND, refused);
        }
        Operation deleting = images.delete(DeleteDesktopImageRequest.newBuilder().setImageId(imageId).build());
        check(OperationUtils.wait(operations, deleting, Duration.ofSeconds(60), Duration.ofMillis(50)).getDone(), deleting);
        channel.shutdownNow();
        System.out.println("ok: Java SDK");
        System.exit(0);
    }

    private static void check(boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError(seen.toString());
        }
    }
}
