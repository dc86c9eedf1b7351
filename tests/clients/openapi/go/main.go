// A client that oapi-codegen made of the server's document, in the package api, against the server.
//
//	ENDPOINT=host:port go run . DISK
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"desktop-images.invalid/tests/clients/openapi/api"
)

// must is a call that must give something.
func must[T any](what string, value *T, err error, body []byte) T {
	if err != nil || value == nil {
		log.Fatalf("%s: %v: %s", what, err, body)
	}
	return *value
}

func check(holds bool, what string, values ...any) {
	if !holds {
		log.Fatalf("%s: %v", what, values)
	}
}

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := api.NewClientWithResponses("http://" + os.Getenv("ENDPOINT"))
	if err != nil {
		log.Fatal(err)
	}
	disk, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	folder, name := "openapi-go-"+rand.Text(), "golden"

	size := int64(1 << 30)
	upload, err := client.ImageServiceUploadWithBodyWithResponse(ctx,
		&api.ImageServiceUploadParams{FolderId: folder, Name: &name, MinDiskSize: &size},
		"application/octet-stream", bytes.NewReader(disk))
	uploaded := must("upload", upload.JSON200, err, upload.Body)
	check(*uploaded.Done && uploaded.Error == nil, "upload", uploaded)
	imageID := uploaded.Metadata.AdditionalProperties["imageId"].(string)

	ten := int64(10)
	list, err := client.ImageServiceListWithResponse(ctx, &api.ImageServiceListParams{FolderId: folder, PageSize: &ten})
	listed := must("list", list.JSON200, err, list.Body)
	check(listed.Images != nil && len(*listed.Images) == 1, "list", listed)
	image := (*listed.Images)[0]
	check(*image.Id == imageID && *image.Name == name, "list", image)
	// Numbers of 64 bits are strings.
	check(*image.MinDiskSize == strconv.FormatInt(size, 10), "minDiskSize", *image.MinDiskSize)
	stored, err := strconv.ParseInt(*image.StorageSize, 10, 64)
	check(err == nil && stored > 0 && stored <= int64(len(disk)), "storageSize", *image.StorageSize)

	request := api.DesktopImageServiceCopyJSONRequestBody{FolderId: folder, Name: "desktop", ImageId: imageID}
	first, err := client.DesktopImageServiceCopyWithResponse(ctx, request)
	copied := must("copy", first.JSON200, err, first.Body)
	check(*copied.Done && copied.Error == nil, "copy", copied)
	desktopID := copied.Metadata.AdditionalProperties["imageId"].(string)
	get, err := client.DesktopImageServiceGetWithResponse(ctx, desktopID)
	desktop := must("get", get.JSON200, err, get.Body)
	check(*desktop.Status == "ACTIVE", "get", *desktop.Status)
	download, err := client.DesktopImageServiceDownloadWithResponse(ctx, desktopID, nil)
	check(err == nil && bytes.Equal(download.Body, disk), "the bytes that were uploaded", err)

	operation, err := client.OperationServiceGetWithResponse(ctx, *copied.Id)
	got := must("operation", operation.JSON200, err, operation.Body)
	check(*got.Id == *copied.Id && got.CreatedAt.Year() > 2000, "operation", got)
	watch, err := client.OperationWatchServiceWatchWithResponse(ctx, *copied.Id)
	watched := must("watch", watch.JSON200, err, watch.Body)
	check(len(watched) > 0, "watch", watched)

	second, err := client.DesktopImageServiceCopyWithResponse(ctx, request)
	refused := must("refusal of a copy", second.JSONDefault, err, second.Body)
	check(second.StatusCode() == 409 && *refused.Code == 6, "refusal of a copy", *refused.Message)
	small := "1"
	create, err := client.ImageServiceCreateWithResponse(ctx,
		api.ImageServiceCreateJSONRequestBody{FolderId: folder, MinDiskSize: &small})
	refused = must("refusal of a create", create.JSONDefault, err, create.Body)
	check(*refused.Code == 3 && refused.Details != nil, "refusal of a create", *refused.Message)

	limit := "9007199254740993"
	set, err := client.QuotaServiceSetWithResponse(ctx,
		api.QuotaServiceSetJSONRequestBody{FolderId: &folder, Name: "compute.images.size", Limit: &limit})
	check(err == nil && set.StatusCode() == 200, "set", err, string(set.Body))
	quotas, err := client.QuotaServiceListWithResponse(ctx, &api.QuotaServiceListParams{FolderId: &folder})
	all := must("quotas", quotas.JSON200, err, quotas.Body)
	found := false
	for _, quota := range *all.Quotas {
		found = found || *quota.Name == "compute.images.size" && *quota.Limit == limit
	}
	check(found, "quotas", string(quotas.Body))
	fmt.Println("ok: oapi-codegen makes a client that works")
}
