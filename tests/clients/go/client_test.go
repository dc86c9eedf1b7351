// Package client runs the published Go stubs against a server.
//
//	ENDPOINT=host:port COMPUTE_IMAGE_ID=id go test -count=1 ./...
//
// ENDPOINT speaks gRPC without TLS; COMPUTE_IMAGE_ID is a compute image in the
// state READY. Every run works in a folder of its own, so that one server may
// be used for many runs.
package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yandex-cloud/go-genproto/yandex/cloud/clouddesktop/v1"
	"github.com/yandex-cloud/go-genproto/yandex/cloud/operation"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const (
	callTimeout      = 30 * time.Second
	operationTimeout = 60 * time.Second
)

var idPattern = regexp.MustCompile(`^e3v[a-z0-9]{17}$`)

// client holds the stubs of one connection and the folder of this run.
type client struct {
	images         clouddesktop.DesktopImageServiceClient
	operations     operation.OperationServiceClient
	folderID       string
	computeImageID string
}

func connect(t *testing.T) *client {
	t.Helper()
	connection, err := grpc.NewClient(
		"passthrough:///"+required(t, "ENDPOINT"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(withTimeout),
	)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { connection.Close() })
	return &client{
		images:         clouddesktop.NewDesktopImageServiceClient(connection),
		operations:     operation.NewOperationServiceClient(connection),
		folderID:       "go-" + random(t),
		computeImageID: required(t, "COMPUTE_IMAGE_ID"),
	}
}

// withTimeout bounds every call, so that a server that never answers fails the test.
func withTimeout(
	ctx context.Context, method string, request, reply any, connection *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return invoke(ctx, method, request, reply, connection, options...)
}

func required(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("set %s", name)
	}
	return value
}

func random(t *testing.T) string {
	t.Helper()
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		t.Fatalf("random bytes: %v", err)
	}
	return hex.EncodeToString(bytes)
}

// copyRequest asks for a copy of the compute image under a name.
func (c *client) copyRequest(name string) *clouddesktop.CopyDesktopImageRequest {
	return &clouddesktop.CopyDesktopImageRequest{
		FolderId: c.folderID, Name: name, ImageId: c.computeImageID,
	}
}

// copied copies the compute image and returns the desktop image.
func (c *client) copied(t *testing.T, request *clouddesktop.CopyDesktopImageRequest) *clouddesktop.DesktopImage {
	t.Helper()
	first, err := c.images.Copy(t.Context(), request)
	if err != nil {
		t.Fatalf("Copy: %v", err)
	}
	image := &clouddesktop.DesktopImage{}
	c.finish(t, first, image)
	return image
}

// finish waits for an operation to succeed and unpacks its response.
func (c *client) finish(t *testing.T, current *operation.Operation, response proto.Message) {
	t.Helper()
	id := current.GetId()
	for deadline := time.Now().Add(operationTimeout); !current.GetDone(); {
		if time.Now().After(deadline) {
			t.Fatalf("operation %s has not ended", id)
		}
		time.Sleep(50 * time.Millisecond)
		var err error
		current, err = c.operations.Get(t.Context(), &operation.GetOperationRequest{OperationId: id})
		if err != nil {
			t.Fatalf("OperationService.Get(%s): %v", id, err)
		}
	}
	if failure := current.GetError(); failure != nil {
		t.Fatalf("operation %s failed: %v", id, failure)
	}
	if current.GetResponse() == nil {
		t.Fatalf("operation %s is done without a response", id)
	}
	if err := current.GetResponse().UnmarshalTo(response); err != nil {
		t.Fatalf("response of operation %s: %v", id, err)
	}
}

// unpackMetadata fails unless the metadata of an operation has the type of the message given.
func unpackMetadata(t *testing.T, current *operation.Operation, message proto.Message) {
	t.Helper()
	if current.GetMetadata() == nil {
		t.Fatalf("operation %s has no metadata", current.GetId())
	}
	if err := current.GetMetadata().UnmarshalTo(message); err != nil {
		t.Fatalf("metadata of operation %s: %v", current.GetId(), err)
	}
}

// wantRefused fails unless err carries the code, and returns its status.
func wantRefused(t *testing.T, what string, err error, code codes.Code) *status.Status {
	t.Helper()
	refusal, known := status.FromError(err)
	if !known || refusal.Code() != code {
		t.Fatalf("%s: want %v, got %v", what, code, err)
	}
	return refusal
}

// failingFields returns the fields that the google.rpc.BadRequest of a status names, sorted.
func failingFields(refusal *status.Status) []string {
	var fields []string
	for _, detail := range refusal.Details() {
		if badRequest, matches := detail.(*errdetails.BadRequest); matches {
			for _, violation := range badRequest.GetFieldViolations() {
				fields = append(fields, violation.GetField())
			}
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

func wantEqual(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestCopyMakesAnActiveImage(t *testing.T) {
	c := connect(t)
	request := c.copyRequest("copied")
	request.Description = "by go"
	request.Labels = map[string]string{"made-by": "go"}
	first, err := c.images.Copy(t.Context(), request)
	if err != nil {
		t.Fatalf("Copy: %v", err)
	}
	about := &clouddesktop.CopyDesktopImageMetadata{}
	unpackMetadata(t, first, about)
	if !idPattern.MatchString(first.GetId()) || !idPattern.MatchString(about.GetImageId()) {
		t.Fatalf("ids: operation %q, image %q", first.GetId(), about.GetImageId())
	}
	if first.GetCreatedAt().AsTime().Year() < 2000 {
		t.Fatalf("created_at of the operation: %v", first.GetCreatedAt())
	}

	image := &clouddesktop.DesktopImage{}
	c.finish(t, first, image)
	if image.GetCreatedAt().AsTime().Year() < 2000 || image.GetMinDiskSize() <= 0 || image.GetStorageSize() <= 0 {
		t.Fatalf("times and sizes: %v", image)
	}
	wantEqual(t, "image", image, &clouddesktop.DesktopImage{
		Id:          about.GetImageId(),
		FolderId:    c.folderID,
		Status:      clouddesktop.DesktopImage_ACTIVE,
		Name:        "copied",
		Description: "by go",
		Labels:      map[string]string{"made-by": "go"},
		CreatedAt:   image.GetCreatedAt(),
		MinDiskSize: image.GetMinDiskSize(),
		StorageSize: image.GetStorageSize(),
	})
	read, err := c.images.Get(t.Context(), &clouddesktop.GetDesktopImageRequest{ImageId: image.GetId()})
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	wantEqual(t, "image read back", read, image)

	_, err = c.images.Copy(t.Context(), request)
	wantRefused(t, "Copy under a taken name", err, codes.AlreadyExists)
}

func TestOperationStaysReadable(t *testing.T) {
	c := connect(t)
	first, err := c.images.Copy(t.Context(), c.copyRequest("followed"))
	if err != nil {
		t.Fatalf("Copy: %v", err)
	}
	c.finish(t, first, &clouddesktop.DesktopImage{})
	read, err := c.operations.Get(t.Context(), &operation.GetOperationRequest{OperationId: first.GetId()})
	if err != nil {
		t.Fatalf("OperationService.Get: %v", err)
	}
	if read.GetId() != first.GetId() || !read.GetDone() {
		t.Fatalf("operation: %v", read)
	}
	wantEqual(t, "metadata", read.GetMetadata(), first.GetMetadata())
	cancelled, err := c.operations.Cancel(t.Context(), &operation.CancelOperationRequest{OperationId: first.GetId()})
	if err != nil {
		t.Fatalf("OperationService.Cancel: %v", err)
	}
	wantEqual(t, "operation cancelled after its end", cancelled, read)
}

func TestListPages(t *testing.T) {
	c := connect(t)
	want := map[string]*clouddesktop.DesktopImage{}
	for number := range 5 {
		image := c.copied(t, c.copyRequest(fmt.Sprintf("page-%d", number)))
		want[image.GetId()] = image
	}
	request := &clouddesktop.ListDesktopImagesRequest{FolderId: c.folderID, PageSize: 2}
	var sizes []int
	last := ""
	for {
		reply, err := c.images.List(t.Context(), request)
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		sizes = append(sizes, len(reply.GetDesktopImages()))
		for _, image := range reply.GetDesktopImages() {
			if image.GetId() <= last {
				t.Fatalf("%s after %s: not ordered by id", image.GetId(), last)
			}
			last = image.GetId()
			wantEqual(t, "listed image", image, want[image.GetId()])
		}
		request.PageToken = reply.GetNextPageToken()
		if request.PageToken == "" {
			break
		}
		if len(request.PageToken) > 100 || len(sizes) == 5 {
			t.Fatalf("page token %q after %d pages", request.PageToken, len(sizes))
		}
	}
	if !slices.Equal(sizes, []int{2, 2, 1}) {
		t.Fatalf("sizes of the pages: %v", sizes)
	}

	reply, err := c.images.List(t.Context(), &clouddesktop.ListDesktopImagesRequest{
		FolderId: c.folderID, Filter: `name IN ("page-1", 'page-3') AND name != "page-0"`, OrderBy: "name desc",
	})
	if err != nil {
		t.Fatalf("List with a filter: %v", err)
	}
	var names []string
	for _, image := range reply.GetDesktopImages() {
		names = append(names, image.GetName())
	}
	if !slices.Equal(names, []string{"page-3", "page-1"}) {
		t.Fatalf("filtered names: %v", names)
	}
}

func TestUpdateChangesWhatTheMaskNames(t *testing.T) {
	c := connect(t)
	request := c.copyRequest("before")
	request.Description = "kept"
	request.Labels = map[string]string{"kept": "yes"}
	image := c.copied(t, request)

	first, err := c.images.Update(t.Context(), &clouddesktop.UpdateDesktopImageRequest{
		ImageId:     image.GetId(),
		UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"name"}},
		Name:        "after",
		Description: "ignored",
	})
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	about := &clouddesktop.UpdateDesktopImageMetadata{}
	unpackMetadata(t, first, about)
	if about.GetImageId() != image.GetId() {
		t.Fatalf("metadata: %v", about)
	}
	updated := &clouddesktop.DesktopImage{}
	c.finish(t, first, updated)
	image.Name = "after"
	wantEqual(t, "updated image", updated, image)
	read, err := c.images.Get(t.Context(), &clouddesktop.GetDesktopImageRequest{ImageId: image.GetId()})
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	wantEqual(t, "updated image read back", read, image)

	_, err = c.images.Update(t.Context(), &clouddesktop.UpdateDesktopImageRequest{
		ImageId: image.GetId(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"size"}}, Name: "after",
	})
	wantRefused(t, "Update with an unknown path in the mask", err, codes.InvalidArgument)
}

func TestDeleteRemovesTheImage(t *testing.T) {
	c := connect(t)
	image := c.copied(t, c.copyRequest("deleted"))
	first, err := c.images.Delete(t.Context(), &clouddesktop.DeleteDesktopImageRequest{ImageId: image.GetId()})
	if err != nil {
		t.Fatalf("Delete: %v", err)
	}
	about := &clouddesktop.DeleteDesktopImageMetadata{}
	unpackMetadata(t, first, about)
	if about.GetImageId() != image.GetId() {
		t.Fatalf("metadata: %v", about)
	}
	c.finish(t, first, &emptypb.Empty{})
	_, err = c.images.Get(t.Context(), &clouddesktop.GetDesktopImageRequest{ImageId: image.GetId()})
	wantRefused(t, "Get after Delete", err, codes.NotFound)
	reply, err := c.images.List(t.Context(), &clouddesktop.ListDesktopImagesRequest{FolderId: c.folderID})
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	if len(reply.GetDesktopImages()) != 0 {
		t.Fatalf("still listed: %v", reply)
	}
}

func TestRepeatedKeyReturnsTheFirstOperation(t *testing.T) {
	c := connect(t)
	// Version and variant make the random digits a UUID.
	digits := random(t)
	key := fmt.Sprintf("%s-%s-4%s-8%s-%s", digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:])
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", key)
	first, err := c.images.Copy(ctx, c.copyRequest("only-once"))
	if err != nil {
		t.Fatalf("Copy: %v", err)
	}
	again, err := c.images.Copy(ctx, c.copyRequest("only-once"))
	if err != nil {
		t.Fatalf("Copy again: %v", err)
	}
	if again.GetId() != first.GetId() {
		t.Fatalf("operations %s and %s", first.GetId(), again.GetId())
	}
	_, err = c.images.Copy(ctx, c.copyRequest("another"))
	wantRefused(t, "another request under the same key", err, codes.InvalidArgument)
}

func TestUnknownIDsAreNotFound(t *testing.T) {
	c := connect(t)
	unknown := c.copyRequest("some")
	unknown.ImageId = "x"
	calls := map[string]func() error{
		"Get": func() error {
			_, err := c.images.Get(t.Context(), &clouddesktop.GetDesktopImageRequest{ImageId: "x"})
			return err
		},
		"Update": func() error {
			_, err := c.images.Update(t.Context(), &clouddesktop.UpdateDesktopImageRequest{ImageId: "x", Name: "some"})
			return err
		},
		"Delete": func() error {
			_, err := c.images.Delete(t.Context(), &clouddesktop.DeleteDesktopImageRequest{ImageId: "x"})
			return err
		},
		"Copy": func() error {
			_, err := c.images.Copy(t.Context(), unknown)
			return err
		},
	}
	for method, call := range calls {
		refusal := wantRefused(t, method, call(), codes.NotFound)
		if refusal.Message() != `Image "x" not found` {
			t.Errorf("%s: message %q", method, refusal.Message())
		}
	}
	_, err := c.operations.Get(t.Context(), &operation.GetOperationRequest{OperationId: "x"})
	wantRefused(t, "OperationService.Get", err, codes.NotFound)
}

func TestBadRequestsNameAllFailingFields(t *testing.T) {
	c := connect(t)
	_, err := c.images.Copy(t.Context(), &clouddesktop.CopyDesktopImageRequest{})
	refusal := wantRefused(t, "an empty Copy", err, codes.InvalidArgument)
	if fields := failingFields(refusal); !slices.Equal(fields, []string{"folder_id", "image_id", "name"}) {
		t.Errorf("an empty Copy: fields %v", fields)
	}
	if !strings.HasPrefix(refusal.Message(), "Validation failed:\n") ||
		!strings.Contains(refusal.Message(), "\n  - name: Field is required") {
		t.Errorf("an empty Copy: message %q", refusal.Message())
	}

	_, err = c.images.List(t.Context(), &clouddesktop.ListDesktopImagesRequest{
		PageSize: 1001, PageToken: strings.Repeat("t", 101),
		Filter: strings.Repeat("f", 1001), OrderBy: strings.Repeat("o", 101),
	})
	refusal = wantRefused(t, "a bad List", err, codes.InvalidArgument)
	want := []string{"filter", "folder_id", "order_by", "page_size", "page_token"}
	if fields := failingFields(refusal); !slices.Equal(fields, want) {
		t.Errorf("a bad List: fields %v", fields)
	}

	_, err = c.images.CopyFromDesktop(t.Context(), &clouddesktop.CopyFromDesktopRequest{DesktopId: "x"})
	wantRefused(t, "CopyFromDesktop", err, codes.Unimplemented)
}
