package client

import (
	"bytes"
	"testing"

	"github.com/yandex-cloud/go-genproto/yandex/cloud/clouddesktop/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// TestGzip sends compressed requests, and reads compressed replies: importing the package of
// gzip makes the client say that it takes it.
func TestGzip(t *testing.T) {
	c := connect(t)
	c.copied(t, c.copyRequest("compressed"))
	request := &clouddesktop.ListDesktopImagesRequest{FolderId: c.folderID}
	reply, err := c.images.List(t.Context(), request, grpc.UseCompressor(gzip.Name))
	if err != nil {
		t.Fatalf("List with gzip: %v", err)
	}
	if len(reply.DesktopImages) != 1 || reply.DesktopImages[0].Name != "compressed" {
		t.Fatalf("List with gzip: %v", reply)
	}
	// A small message that is a large one: refused by the limit, not for its compression.
	request.Filter = string(bytes.Repeat([]byte("x"), 8<<20))
	_, err = c.images.List(t.Context(), request, grpc.UseCompressor(gzip.Name))
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("a message of 8 MiB, compressed: %v", err)
	}
}
