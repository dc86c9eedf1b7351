// Package client runs the public Go SDK, version 2, against a server.
//
//	ENDPOINT=host:port COMPUTE_IMAGE_ID=id go test -count=1 ./...
//
// ENDPOINT speaks gRPC without TLS; COMPUTE_IMAGE_ID is a compute image in the state READY. TLS_ENDPOINT, TOKEN and
// KEY_FILE, where they are set, are a server with TLS, a token of it, and the key of a service account; SSL_CERT_FILE is
// the file with its authority, since the discovery of this SDK always speaks TLS and takes no other setting.
//
// The SDK's own packages of services cannot be had everywhere, and the stubs of go-genproto serve as well.
package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"testing"
	"time"

	clouddesktop "github.com/yandex-cloud/go-genproto/yandex/cloud/clouddesktop/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"
	ycsdk "github.com/yandex-cloud/go-sdk/v2"
	"github.com/yandex-cloud/go-sdk/v2/credentials"
	"github.com/yandex-cloud/go-sdk/v2/pkg/endpoints"
	"github.com/yandex-cloud/go-sdk/v2/pkg/operation"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	images     = "yandex.cloud.clouddesktop.v1.api.DesktopImageService"
	operations = "yandex.cloud.operation.OperationService"
)

func TestPlainByASingleEndpoint(t *testing.T) {
	use(t,
		options.WithCredentials(credentials.IAMToken("any")), options.WithPlaintext(),
		options.WithEndpointsResolver(endpoints.NewSingleEndpointResolver(os.Getenv("ENDPOINT"))),
	)
}

func TestTLSByDiscovery(t *testing.T) {
	overTLS(t, credentials.IAMToken(os.Getenv("TOKEN")))
}

func TestTLSWithAKey(t *testing.T) {
	file := os.Getenv("KEY_FILE")
	if file == "" {
		t.Skip("there is no key")
	}
	key, err := credentials.ServiceAccountKeyFile(file)
	if err != nil {
		t.Fatalf("the key: %v", err)
	}
	overTLS(t, key)
}

func overTLS(t *testing.T, credentials credentials.Credentials) {
	t.Helper()
	address := os.Getenv("TLS_ENDPOINT")
	if address == "" {
		t.Skip("there is no server with TLS")
	}
	use(t, options.WithCredentials(credentials), options.WithDiscoveryEndpoint(address))
}

// connection is the SDK's connection for a method.
func connection(t *testing.T, sdk *ycsdk.SDK, method string) grpc.ClientConnInterface {
	t.Helper()
	connection, err := sdk.GetConnection(t.Context(), protoreflect.FullName(method))
	if err != nil {
		t.Fatalf("connection for %s: %v", method, err)
	}
	return connection
}

// use does the main job with an SDK of these options.
func use(t *testing.T, given ...options.Option) {
	ctx := t.Context()
	sdk, err := ycsdk.Build(ctx, given...)
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	t.Cleanup(func() { sdk.Shutdown(context.Background()) })
	client := clouddesktop.NewDesktopImageServiceClient(connection(t, sdk, images+".Copy"))
	operationClient := operationpb.NewOperationServiceClient(connection(t, sdk, operations+".Get"))
	random := make([]byte, 8)
	rand.Read(random)
	folder := "go-sdk-v2-" + hex.EncodeToString(random)

	// wait has the SDK wait for an operation.
	wait := func(name string, described, replied proto.Message, begun *operationpb.Operation, err error) proto.Message {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		poll := func(ctx context.Context, id string, options ...grpc.CallOption) (operation.YCOperation, error) {
			return operationClient.Get(ctx, &operationpb.GetOperationRequest{OperationId: id}, options...)
		}
		running, err := operation.NewOperation(begun, &operation.Concretization{
			Poll: poll, MetadataType: described, ResponseType: replied,
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		response, err := running.WaitInterval(ctx, func(int) time.Duration { return 50 * time.Millisecond })
		if err != nil {
			t.Fatalf("waiting for %s: %v", name, err)
		}
		return response
	}

	begun, err := client.Copy(ctx, &clouddesktop.CopyDesktopImageRequest{
		FolderId: folder, Name: "x", ImageId: os.Getenv("COMPUTE_IMAGE_ID"), Labels: map[string]string{"one": "1"},
	})
	response := wait("Copy", &clouddesktop.CopyDesktopImageMetadata{}, &clouddesktop.DesktopImage{}, begun, err)
	copied := response.(*clouddesktop.DesktopImage)

	// The data source of the Terraform provider finds an image by name, and reads it again for its labels.
	page, err := client.List(ctx, &clouddesktop.ListDesktopImagesRequest{
		FolderId: folder, Filter: `name="x"`, PageSize: 1,
	})
	if err != nil || len(page.DesktopImages) != 1 || page.NextPageToken != "" {
		t.Fatalf("List by name: %v, %v", page, err)
	}
	var header metadata.MD
	request := &clouddesktop.GetDesktopImageRequest{ImageId: page.DesktopImages[0].Id}
	image, err := client.Get(ctx, request, grpc.Header(&header))
	if err != nil || image.Id != copied.Id || image.Labels["one"] != "1" {
		t.Fatalf("Get: %v, %v", image, err)
	}
	for _, name := range []string{"x-request-id", "x-server-request-id", "x-server-trace-id"} {
		if values := header.Get(name); len(values) != 1 || values[0] == "" {
			t.Errorf("header %s: %v", name, values)
		}
	}
	_, err = client.Get(ctx, &clouddesktop.GetDesktopImageRequest{ImageId: "nothing"})
	if status.Code(err) != codes.NotFound {
		t.Fatalf("Get of nothing: %v", err)
	}
	begun, err = client.Delete(ctx, &clouddesktop.DeleteDesktopImageRequest{ImageId: copied.Id})
	wait("Delete", &clouddesktop.DeleteDesktopImageMetadata{}, &emptypb.Empty{}, begun, err)
}
