// Package client runs the public Go SDK, version 1, against a server that it finds by discovery.
//
//	ENDPOINT=host:port COMPUTE_IMAGE_ID=id go test -count=1 ./...
//
// ENDPOINT speaks gRPC without TLS; COMPUTE_IMAGE_ID is a compute image in the state READY. TLS_ENDPOINT, CA_FILE, TOKEN
// and KEY_FILE, where they are set, are a server with TLS, the file with its authority, a token of it, and the key of a
// service account.
package client

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"os"
	"testing"

	clouddesktop "github.com/yandex-cloud/go-genproto/yandex/cloud/clouddesktop/v1"
	"github.com/yandex-cloud/go-genproto/yandex/cloud/compute/v1"
	"github.com/yandex-cloud/go-genproto/yandex/cloud/endpoint"
	ycsdk "github.com/yandex-cloud/go-sdk"
	"github.com/yandex-cloud/go-sdk/iamkey"
	"github.com/yandex-cloud/go-sdk/pkg/requestid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func build(t *testing.T, config ycsdk.Config) *ycsdk.SDK {
	t.Helper()
	sdk, err := ycsdk.Build(t.Context(), config, grpc.WithChainUnaryInterceptor(requestid.Interceptor()))
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	t.Cleanup(func() { sdk.Shutdown(t.Context()) })
	return sdk
}

func TestPlainByDiscovery(t *testing.T) {
	use(t, build(t, ycsdk.Config{
		Credentials: ycsdk.NewIAMTokenCredentials("any"), Endpoint: os.Getenv("ENDPOINT"), Plaintext: true,
	}))
}

func TestTLSByDiscovery(t *testing.T) {
	overTLS(t, ycsdk.NewIAMTokenCredentials(os.Getenv("TOKEN")))
}

func TestTLSWithAKey(t *testing.T) {
	file := os.Getenv("KEY_FILE")
	if file == "" {
		t.Skip("there is no key")
	}
	key, err := iamkey.ReadFromJSONFile(file)
	if err != nil {
		t.Fatalf("the key: %v", err)
	}
	credentials, err := ycsdk.ServiceAccountKey(key)
	if err != nil {
		t.Fatalf("the key: %v", err)
	}
	overTLS(t, credentials)
}

func overTLS(t *testing.T, credentials ycsdk.Credentials) {
	t.Helper()
	address := os.Getenv("TLS_ENDPOINT")
	if address == "" {
		t.Skip("there is no server with TLS")
	}
	authority, err := os.ReadFile(os.Getenv("CA_FILE"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("no certificate")
	}
	use(t, build(t, ycsdk.Config{
		Credentials: credentials, Endpoint: address, TLSConfig: &tls.Config{RootCAs: roots},
	}))
}

// use does the main job with an SDK.
func use(t *testing.T, sdk *ycsdk.SDK) {
	ctx := t.Context()
	random := make([]byte, 8)
	rand.Read(random)
	folder := "go-sdk-v1-" + hex.EncodeToString(random)
	source := os.Getenv("COMPUTE_IMAGE_ID")

	listed, err := sdk.ApiEndpoint().ApiEndpoint().List(ctx, &endpoint.ListApiEndpointsRequest{})
	if err != nil || len(listed.Endpoints) != 5 {
		t.Fatalf("endpoints: %v, %v", listed, err)
	}
	if _, err := sdk.Compute().Image().Get(ctx, &compute.GetImageRequest{ImageId: source}); err != nil {
		t.Fatalf("compute image: %v", err)
	}

	images := sdk.CloudDesktop().DesktopImage()
	copying, err := sdk.WrapOperation(images.Copy(ctx, &clouddesktop.CopyDesktopImageRequest{
		FolderId: folder, Name: "x", ImageId: source, Labels: map[string]string{"one": "1"},
	}))
	if err != nil {
		t.Fatalf("Copy: %v", err)
	}
	if err := copying.Wait(ctx); err != nil {
		t.Fatalf("waiting for Copy: %v", err)
	}
	response, err := copying.Response()
	if err != nil {
		t.Fatalf("response: %v", err)
	}
	copied := response.(*clouddesktop.DesktopImage)
	described, err := copying.Metadata()
	if err != nil || described.(*clouddesktop.CopyDesktopImageMetadata).ImageId != copied.Id {
		t.Fatalf("metadata: %v, %v", described, err)
	}

	// The data source of the Terraform provider finds an image by name, and reads it again for its labels.
	page, err := images.List(ctx, &clouddesktop.ListDesktopImagesRequest{
		FolderId: folder, Filter: `name="x"`, PageSize: 1,
	})
	if err != nil || len(page.DesktopImages) != 1 || page.NextPageToken != "" {
		t.Fatalf("List by name: %v, %v", page, err)
	}
	var header metadata.MD
	request := &clouddesktop.GetDesktopImageRequest{ImageId: page.DesktopImages[0].Id}
	image, err := images.Get(ctx, request, grpc.Header(&header))
	if err != nil || image.Labels["one"] != "1" {
		t.Fatalf("Get: %v, %v", image, err)
	}
	for _, name := range []string{"x-request-id", "x-server-request-id", "x-server-trace-id"} {
		if values := header.Get(name); len(values) != 1 || values[0] == "" {
			t.Errorf("header %s: %v", name, values)
		}
	}

	// A refusal, with the ids that the SDK reads from its headers.
	_, err = images.Get(ctx, &clouddesktop.GetDesktopImageRequest{ImageId: "nothing"})
	if status.Code(err) != codes.NotFound {
		t.Fatalf("Get of nothing: %v", err)
	}
	ids, ok := requestid.RequestIDsFromError(err)
	if !ok || ids.ServerRequestID == "" || ids.ServerTraceID == "" {
		t.Errorf("ids of a refusal: %+v", ids)
	}

	deleting, err := sdk.WrapOperation(images.Delete(ctx, &clouddesktop.DeleteDesktopImageRequest{ImageId: copied.Id}))
	if err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if err := deleting.Wait(ctx); err != nil {
		t.Fatalf("waiting for Delete: %v", err)
	}
}
