"""The public Python SDK against a server with TLS, by discovery.

Usage: TLS_ENDPOINT=host:port CA_FILE=file TOKEN=token COMPUTE_IMAGE_ID=id test_sdk.py

With KEY_FILE, the key of a service account, the SDK signs in with that, and not with the token.

`sdk.client(DesktopImageServiceStub)` raises "Unknown service" in the SDK itself, so the stub is made by hand on the
channel of the SDK. Discovery and the waiting for operations always use TLS.
"""

import json
import os
import uuid

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from yandex.cloud.clouddesktop.v1.desktop_image_pb2 import DesktopImage
from yandex.cloud.clouddesktop.v1.desktop_image_service_pb2 import (
    CopyDesktopImageMetadata,
    CopyDesktopImageRequest,
    DeleteDesktopImageMetadata,
    DeleteDesktopImageRequest,
    GetDesktopImageRequest,
    ListDesktopImagesRequest,
    UpdateDesktopImageMetadata,
    UpdateDesktopImageRequest,
)
from yandex.cloud.clouddesktop.v1.desktop_image_service_pb2_grpc import DesktopImageServiceStub
from yandex.cloud.compute.v1.image_service_pb2 import GetImageRequest
from yandex.cloud.compute.v1.image_service_pb2_grpc import ImageServiceStub
from yandexcloud import SDK


def main():
    folder_id = f"python-sdk-{uuid.uuid4()}"
    source = os.environ["COMPUTE_IMAGE_ID"]
    with open(os.environ["CA_FILE"], "rb") as file:
        authority = file.read()
    credentials = {"iam_token": os.environ["TOKEN"]}
    if os.environ.get("KEY_FILE"):
        with open(os.environ["KEY_FILE"]) as file:
            credentials = {"service_account_key": json.load(file)}
    sdk = SDK(endpoint=os.environ["TLS_ENDPOINT"], root_certificates=authority, **credentials)

    assert sdk.client(ImageServiceStub).Get(GetImageRequest(image_id=source)).id == source
    images = DesktopImageServiceStub(sdk._channels.channel("clouddesktops"))

    def waited(operation, response_type, meta_type):
        result = sdk.wait_operation_and_get_result(operation, response_type, meta_type, timeout=60)
        return result.response, result.meta

    request = CopyDesktopImageRequest(folder_id=folder_id, name="x", image_id=source, labels={"one": "1"})
    copied, meta = waited(images.Copy(request), DesktopImage, CopyDesktopImageMetadata)
    assert copied.status == DesktopImage.ACTIVE and meta.image_id == copied.id, copied
    page = images.List(ListDesktopImagesRequest(folder_id=folder_id, filter='name="x"', page_size=1))
    assert [image.id for image in page.desktop_images] == [copied.id], page
    assert dict(images.Get(GetDesktopImageRequest(image_id=copied.id)).labels) == {"one": "1"}

    request = UpdateDesktopImageRequest(
        image_id=copied.id, update_mask=FieldMask(paths=["description"]), description="new"
    )
    updated, _ = waited(images.Update(request), DesktopImage, UpdateDesktopImageMetadata)
    assert updated.description == "new" and updated.name == "x", updated
    try:
        images.Get(GetDesktopImageRequest(image_id="nothing"))
        raise AssertionError("an unknown image was found")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        for metadata in (error.initial_metadata(), error.trailing_metadata()):
            assert "x-server-trace-id" in {key for key, _ in metadata}, metadata
    waited(images.Delete(DeleteDesktopImageRequest(image_id=copied.id)), Empty, DeleteDesktopImageMetadata)
    print("ok: Python SDK")


main()
