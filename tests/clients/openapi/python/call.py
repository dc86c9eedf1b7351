"""A client that openapi-python-client made of the server's document, in the package `api`, against the server.

Usage: ENDPOINT=host:port COMPUTE_IMAGE_ID=id call.py DISK
"""

import os
import sys
import uuid
from io import BytesIO
from pathlib import Path

from api import Client
from api.api.desktop_image_service import (
    desktop_image_service_copy,
    desktop_image_service_download,
    desktop_image_service_get,
    desktop_image_service_list,
)
from api.api.image_service import image_service_create, image_service_list, image_service_upload
from api.api.operation_service import operation_service_cancel_2, operation_service_get
from api.api.operation_watch_service import operation_watch_service_watch
from api.api.quota_service import quota_service_list, quota_service_set
from api.models import (
    DesktopimagesV1SetQuotaRequest,
    GoogleRpcStatus,
    YandexCloudClouddesktopV1ApiCopyDesktopImageRequest,
    YandexCloudClouddesktopV1ApiDesktopImageStatus,
    YandexCloudComputeV1CreateImageRequest,
)
from api.types import File


def main():
    client = Client(base_url=f"http://{os.environ['ENDPOINT']}")
    disk = Path(sys.argv[1]).read_bytes()
    folder = f"python-{uuid.uuid4()}"

    uploaded = image_service_upload.sync(
        client=client, folder_id=folder, name="golden", min_disk_size=1 << 30, body=File(payload=BytesIO(disk))
    )
    assert uploaded.done and not uploaded.error, uploaded
    image_id = uploaded.metadata["imageId"]
    listed = image_service_list.sync(client=client, folder_id=folder, page_size=10)
    (image,) = listed.images
    assert (image.id, image.name) == (image_id, "golden"), image
    # Numbers of 64 bits are strings.
    assert image.min_disk_size == str(1 << 30), image.min_disk_size
    assert 0 < int(image.storage_size) <= len(disk), image.storage_size

    request = YandexCloudClouddesktopV1ApiCopyDesktopImageRequest(folder_id=folder, name="desktop", image_id=image_id)
    copied = desktop_image_service_copy.sync(client=client, body=request)
    assert copied.done and not copied.error, copied
    desktop_id = copied.metadata["imageId"]
    desktop = desktop_image_service_get.sync(desktop_id, client=client)
    assert desktop.status == YandexCloudClouddesktopV1ApiDesktopImageStatus.ACTIVE, desktop
    assert len(desktop_image_service_list.sync(client=client, folder_id=folder).desktop_images) == 1
    downloaded = desktop_image_service_download.sync(desktop_id, client=client)
    assert downloaded.payload.read() == disk, "the bytes that were uploaded"
    part = desktop_image_service_download.sync(desktop_id, client=client, range_="bytes=0-9")
    assert part.payload.read() == disk[:10]

    operation = operation_service_get.sync(copied.id, client=client)
    assert operation.id == copied.id and operation.created_at.year > 2000, operation
    assert operation_service_cancel_2.sync(copied.id, client=client).done
    watched = operation_watch_service_watch.sync(copied.id, client=client)
    assert watched[-1].done, watched

    refused = desktop_image_service_copy.sync(client=client, body=request)
    assert isinstance(refused, GoogleRpcStatus) and refused.code == 6, refused
    create = YandexCloudComputeV1CreateImageRequest(folder_id=folder, min_disk_size="1")
    refused = image_service_create.sync(client=client, body=create)
    assert isinstance(refused, GoogleRpcStatus) and refused.code == 3, refused
    fields = {violation["field"] for detail in refused.details for violation in detail.to_dict().get("fieldViolations", [])}
    assert "min_disk_size" in fields, refused

    limit = str(2**53 + 1)
    quota = DesktopimagesV1SetQuotaRequest(folder_id=folder, name="compute.images.size", limit=limit)
    quota_service_set.sync(client=client, body=quota)
    quotas = {quota.name: quota.limit for quota in quota_service_list.sync(client=client, folder_id=folder).quotas}
    assert quotas["compute.images.size"] == limit, quotas
    print("ok: openapi-python-client makes a client that works")


if __name__ == "__main__":
    main()
