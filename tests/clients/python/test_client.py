"""A client built from the published package `yandexcloud`, run against a server.

Usage: ENDPOINT=host:port COMPUTE_IMAGE_ID=id test_client.py

ENDPOINT speaks gRPC without TLS; COMPUTE_IMAGE_ID is a compute image in the state
READY. Everything happens in a folder of its own, so that a server may be used for
many runs. A failed step ends the run with a traceback and exit code 1.
"""

import os
import re
import sys
import time
import uuid

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from yandex.cloud.clouddesktop.v1.desktop_image_pb2 import DesktopImage
from yandex.cloud.clouddesktop.v1.desktop_image_service_pb2 import (
    CopyDesktopImageMetadata,
    CopyDesktopImageRequest,
    CopyFromDesktopRequest,
    DeleteDesktopImageMetadata,
    DeleteDesktopImageRequest,
    GetDesktopImageRequest,
    ListDesktopImagesRequest,
    UpdateDesktopImageMetadata,
    UpdateDesktopImageRequest,
)
from yandex.cloud.clouddesktop.v1.desktop_image_service_pb2_grpc import DesktopImageServiceStub
from yandex.cloud.operation.operation_service_pb2 import CancelOperationRequest, GetOperationRequest
from yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub
from yandexcloud._operation_waiter import get_operation_result

CALL_TIMEOUT = 30
OPERATION_TIMEOUT = 60


class Client:
    """The stubs of one channel.

    `client` has the shape that the package's own code for waiting expects of an SDK
    object, so that this code runs here too. It sends an idempotency key with reads.
    """

    def __init__(self, endpoint):
        self.channel = grpc.insecure_channel(endpoint)
        self.images = DesktopImageServiceStub(self.channel)
        self.operations = OperationServiceStub(self.channel)
        self.folder_id = f"python-{uuid.uuid4()}"
        self.compute_image_id = os.environ["COMPUTE_IMAGE_ID"]

    def client(self, stub, interceptor=None):
        return stub(grpc.intercept_channel(self.channel, interceptor) if interceptor else self.channel)

    def copy(self, name, **fields):
        """Copies the compute image and returns the first reply."""
        request = CopyDesktopImageRequest(folder_id=self.folder_id, name=name, image_id=self.compute_image_id, **fields)
        return self.images.Copy(request, timeout=CALL_TIMEOUT)

    def copied(self, name, **fields):
        """Copies the compute image and returns the desktop image."""
        return self.finished(self.copy(name, **fields), DesktopImage)

    def finished(self, operation, response_type):
        """Waits for an operation to succeed and returns its response."""
        deadline = time.monotonic() + OPERATION_TIMEOUT
        while not operation.done:
            assert time.monotonic() < deadline, f"operation {operation.id} has not ended"
            time.sleep(0.05)
            operation = self.operations.Get(GetOperationRequest(operation_id=operation.id), timeout=CALL_TIMEOUT)
        assert operation.WhichOneof("result") == "response", operation
        response = response_type()
        assert operation.response.Unpack(response), operation.response.type_url
        return response

    def listed(self, **fields):
        return self.images.List(ListDesktopImagesRequest(folder_id=self.folder_id, **fields), timeout=CALL_TIMEOUT)


def refused(code, method, request, **arguments):
    """Makes a call that must fail with this code, and returns its google.rpc.Status."""
    try:
        reply = method(request, timeout=CALL_TIMEOUT, **arguments)
    except grpc.RpcError as error:
        assert error.code() == code, f"expected {code}, got {error.code()}: {error.details()}"
        for key, value in error.trailing_metadata():
            if key == "grpc-status-details-bin":
                status = status_pb2.Status.FromString(value)
                assert status.code == code.value[0], status
                assert status.message == error.details(), status
                return status
        return status_pb2.Status(code=code.value[0], message=error.details())
    raise AssertionError(f"expected {code}, got a reply: {reply}")


def failing_fields(status):
    """The fields that the google.rpc.BadRequest of a status names."""
    fields = set()
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            fields |= {violation.field for violation in bad_request.field_violations}
            assert all(violation.description for violation in bad_request.field_violations), bad_request
    return fields


def is_id(text):
    return re.fullmatch("e3v[a-z0-9]{17}", text) is not None


def copy_makes_an_active_image(client):
    operation = client.copy("copied", description="by python", labels={"made-by": "python"})
    # Stock clients check the type in the very first reply.
    assert operation.metadata.Is(CopyDesktopImageMetadata.DESCRIPTOR), operation.metadata.type_url
    metadata = CopyDesktopImageMetadata()
    operation.metadata.Unpack(metadata)
    assert is_id(operation.id), operation.id
    assert is_id(metadata.image_id), metadata.image_id
    assert operation.created_at.seconds > 0, operation
    assert operation.modified_at.ToNanoseconds() >= operation.created_at.ToNanoseconds(), operation

    image = client.finished(operation, DesktopImage)
    assert image.id == metadata.image_id, image
    assert image.folder_id == client.folder_id, image
    assert image.status == DesktopImage.ACTIVE, image
    assert image.name == "copied", image
    assert image.description == "by python", image
    assert dict(image.labels) == {"made-by": "python"}, image
    assert image.created_at.seconds > 0, image
    assert image.min_disk_size > 0, image
    assert image.storage_size > 0, image
    assert client.images.Get(GetDesktopImageRequest(image_id=image.id), timeout=CALL_TIMEOUT) == image


def operation_stays_readable(client):
    operation = client.copy("followed")
    client.finished(operation, DesktopImage)
    first = client.operations.Get(GetOperationRequest(operation_id=operation.id), timeout=CALL_TIMEOUT)
    assert first.id == operation.id and first.done, first
    assert first.metadata == operation.metadata, first
    assert first.created_at == operation.created_at, first
    cancelled = client.operations.Cancel(CancelOperationRequest(operation_id=operation.id), timeout=CALL_TIMEOUT)
    assert cancelled == first, "to cancel an operation that has ended changes nothing"


def stock_waiter_accepts_the_operation(client):
    result = get_operation_result(
        client,
        client.copy("waited-for"),
        response_type=DesktopImage,
        meta_type=CopyDesktopImageMetadata,
        timeout=OPERATION_TIMEOUT,
    )
    assert result.response.id == result.meta.image_id != "", result.response
    assert result.response.status == DesktopImage.ACTIVE, result.response


def list_pages(client):
    images = [client.copied(f"page-{number}") for number in range(5)]
    wanted = 'name IN ("page-0", "page-1", \'page-2\', "page-3", "page-4")'

    seen, token, sizes = [], "", []
    while True:
        reply = client.listed(page_size=2, page_token=token, filter=wanted)
        seen.extend(reply.desktop_images)
        sizes.append(len(reply.desktop_images))
        token = reply.next_page_token
        assert len(token) <= 100, token
        if not token:
            break
        assert len(sizes) < 5, "the list does not end"
    assert sizes == [2, 2, 1], sizes
    assert seen == sorted(images, key=lambda image: image.id), "ordered by id, each image once"

    names = [image.name for image in client.listed(filter=wanted, order_by="name desc").desktop_images]
    assert names == ["page-4", "page-3", "page-2", "page-1", "page-0"], names
    only = client.listed(filter='name = "page-3"')
    assert [image.id for image in only.desktop_images] == [images[3].id], only
    assert not only.next_page_token, only

    token = client.listed(page_size=2, filter=wanted).next_page_token
    other = ListDesktopImagesRequest(folder_id=client.folder_id, page_token=token, order_by="name desc")
    refused(grpc.StatusCode.INVALID_ARGUMENT, client.images.List, other)


def update_changes_what_the_mask_names(client):
    image = client.copied("before", description="kept", labels={"kept": "yes"})
    operation = client.images.Update(
        UpdateDesktopImageRequest(
            image_id=image.id, update_mask=FieldMask(paths=["name"]), name="after", description="ignored"
        ),
        timeout=CALL_TIMEOUT,
    )
    assert operation.metadata.Is(UpdateDesktopImageMetadata.DESCRIPTOR), operation.metadata.type_url
    metadata = UpdateDesktopImageMetadata()
    operation.metadata.Unpack(metadata)
    assert metadata.image_id == image.id, metadata
    image.name = "after"
    assert client.finished(operation, DesktopImage) == image
    assert client.images.Get(GetDesktopImageRequest(image_id=image.id), timeout=CALL_TIMEOUT) == image

    # Without a mask, what the request leaves out is reset.
    operation = client.images.Update(
        UpdateDesktopImageRequest(image_id=image.id, name="after", labels={"new": "1"}), timeout=CALL_TIMEOUT
    )
    updated = client.finished(operation, DesktopImage)
    assert updated.description == "" and dict(updated.labels) == {"new": "1"}, updated

    unknown = UpdateDesktopImageRequest(image_id=image.id, update_mask=FieldMask(paths=["size"]), name="after")
    refused(grpc.StatusCode.INVALID_ARGUMENT, client.images.Update, unknown)


def delete_removes_the_image(client):
    image = client.copied("deleted")
    operation = client.images.Delete(DeleteDesktopImageRequest(image_id=image.id), timeout=CALL_TIMEOUT)
    assert operation.metadata.Is(DeleteDesktopImageMetadata.DESCRIPTOR), operation.metadata.type_url
    metadata = DeleteDesktopImageMetadata()
    operation.metadata.Unpack(metadata)
    assert metadata.image_id == image.id, metadata
    client.finished(operation, Empty)
    status = refused(grpc.StatusCode.NOT_FOUND, client.images.Get, GetDesktopImageRequest(image_id=image.id))
    assert status.message == f'Image "{image.id}" not found', status
    assert image.id not in [each.id for each in client.listed().desktop_images]


def taken_names_are_refused(client):
    client.copied("taken")
    request = CopyDesktopImageRequest(folder_id=client.folder_id, name="taken", image_id=client.compute_image_id)
    refused(grpc.StatusCode.ALREADY_EXISTS, client.images.Copy, request)


def a_repeated_key_returns_the_first_operation(client):
    metadata = (("idempotency-key", str(uuid.uuid4())),)
    request = CopyDesktopImageRequest(folder_id=client.folder_id, name="only-once", image_id=client.compute_image_id)
    first = client.images.Copy(request, timeout=CALL_TIMEOUT, metadata=metadata)
    again = client.images.Copy(request, timeout=CALL_TIMEOUT, metadata=metadata)
    assert again.id == first.id, (first, again)
    request.name = "another"
    refused(grpc.StatusCode.INVALID_ARGUMENT, client.images.Copy, request, metadata=metadata)


def unknown_ids_are_not_found(client):
    image_requests = [
        (client.images.Get, GetDesktopImageRequest(image_id="x")),
        (client.images.Update, UpdateDesktopImageRequest(image_id="x", name="some")),
        (client.images.Delete, DeleteDesktopImageRequest(image_id="x")),
        (
            client.images.Copy,
            CopyDesktopImageRequest(folder_id=client.folder_id, name="some", image_id="x"),
        ),
    ]
    for method, request in image_requests:
        status = refused(grpc.StatusCode.NOT_FOUND, method, request)
        assert status.message == 'Image "x" not found', (request, status)
    refused(grpc.StatusCode.NOT_FOUND, client.operations.Get, GetOperationRequest(operation_id="x"))
    refused(grpc.StatusCode.NOT_FOUND, client.operations.Cancel, CancelOperationRequest(operation_id="x"))


def bad_requests_name_all_failing_fields(client):
    bad = grpc.StatusCode.INVALID_ARGUMENT
    status = refused(bad, client.images.Copy, CopyDesktopImageRequest())
    assert failing_fields(status) == {"folder_id", "name", "image_id"}, status
    lines = status.message.splitlines()
    assert lines[0] == "Validation failed:", status
    assert sorted(lines[1:]) == [f"  - {field}: Field is required" for field in ("folder_id", "image_id", "name")], (
        status
    )

    request = CopyDesktopImageRequest(
        folder_id="f" * 51,
        name="n" * 51,
        image_id="i" * 51,
        description="d" * 1025,
        labels={"UPPER": "value", "key": "Not Allowed"},
    )
    fields = failing_fields(refused(bad, client.images.Copy, request))
    # A violation may name the label too: `labels["UPPER"]`, `labels.key`.
    fields = {re.sub(r"^labels[.\[].*", "labels", field) for field in fields}
    assert fields == {"folder_id", "name", "image_id", "description", "labels"}, fields

    cases = [
        (client.images.Get, GetDesktopImageRequest(), {"image_id"}),
        (client.images.Delete, DeleteDesktopImageRequest(), {"image_id"}),
        (client.images.Update, UpdateDesktopImageRequest(name="n" * 51), {"image_id", "name"}),
        (client.operations.Get, GetOperationRequest(), {"operation_id"}),
        (client.operations.Cancel, CancelOperationRequest(), {"operation_id"}),
        (
            client.images.List,
            ListDesktopImagesRequest(page_size=1001, page_token="t" * 101, filter="f" * 1001, order_by="o" * 101),
            {"folder_id", "page_size", "page_token", "filter", "order_by"},
        ),
        (
            client.images.List,
            ListDesktopImagesRequest(folder_id=client.folder_id, page_size=-1),
            {"page_size"},
        ),
    ]
    for method, request, expected in cases:
        status = refused(bad, method, request)
        assert failing_fields(status) == expected, (request, status)

    for query in ({"page_token": "forged"}, {"filter": "size = 1"}, {"filter": "name ="}, {"order_by": "size"}):
        refused(bad, client.images.List, ListDesktopImagesRequest(folder_id=client.folder_id, **query))


def copy_from_a_desktop_is_not_served_yet(client):
    refused(grpc.StatusCode.UNIMPLEMENTED, client.images.CopyFromDesktop, CopyFromDesktopRequest(desktop_id="x"))


def replies_carry_request_ids(client):
    request_id = str(uuid.uuid4())
    _, call = client.images.List.with_call(
        ListDesktopImagesRequest(folder_id=client.folder_id),
        timeout=CALL_TIMEOUT,
        metadata=(("x-client-request-id", request_id),),
    )
    headers = dict(call.initial_metadata())
    assert headers.get("x-request-id"), headers
    assert headers.get("x-server-trace-id"), headers


def messages_are_compressed_both_ways(client):
    """The client says with each call that it reads gzip; it sends what it is told to."""
    client.copied("compressed", description="x" * 1000)
    request = ListDesktopImagesRequest(folder_id=client.folder_id, filter='name = "compressed"')
    reply, call = client.images.List.with_call(request, timeout=CALL_TIMEOUT, compression=grpc.Compression.Gzip)
    assert [image.name for image in reply.desktop_images] == ["compressed"], reply
    assert reply.desktop_images[0].description == "x" * 1000, reply
    request.filter = "x" * (8 << 20)
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, client.images.List, request, compression=grpc.Compression.Gzip)
    refused(grpc.StatusCode.UNIMPLEMENTED, client.images.List, request, compression=grpc.Compression.Deflate)


STEPS = [
    copy_makes_an_active_image,
    operation_stays_readable,
    stock_waiter_accepts_the_operation,
    list_pages,
    update_changes_what_the_mask_names,
    delete_removes_the_image,
    taken_names_are_refused,
    a_repeated_key_returns_the_first_operation,
    unknown_ids_are_not_found,
    bad_requests_name_all_failing_fields,
    copy_from_a_desktop_is_not_served_yet,
    replies_carry_request_ids,
    messages_are_compressed_both_ways,
]


def main():
    missing = [name for name in ("ENDPOINT", "COMPUTE_IMAGE_ID") if not os.environ.get(name)]
    if missing:
        sys.exit(f"set {' and '.join(missing)}")
    client = Client(os.environ["ENDPOINT"])
    grpc.channel_ready_future(client.channel).result(timeout=CALL_TIMEOUT)
    for passed, step in enumerate(STEPS):
        try:
            step(client)
        except BaseException:
            print(f"{step.__name__}: failed, after {passed} passed")
            raise
        print(f"{step.__name__}: ok")
    print(f"{len(STEPS)} passed, 0 failed")


if __name__ == "__main__":
    main()
