"""Shows that check_contract.py notices what it is for.

Each case changes one place in a copy of the .proto files and names the line that
the check must then report.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO = HERE.parents[2] / "proto"

IMAGE = "yandex/cloud/clouddesktop/v1/desktop_image.proto"
IMAGE_SERVICE = "yandex/cloud/clouddesktop/v1/desktop_image_service.proto"
OPERATION = "yandex/cloud/operation/operation.proto"
OPERATION_SERVICE = "yandex/cloud/operation/operation_service.proto"
COMPUTE_SERVICE = "yandex/cloud/compute/v1/image_service.proto"
IAM = "yandex/cloud/iam/v1/iam_token_service.proto"
ENDPOINT = "yandex/cloud/endpoint/api_endpoint_service.proto"
VALIDATION = "yandex/cloud/validation.proto"
BODY = "google/api/httpbody.proto"

API = "yandex.cloud.clouddesktop.v1.api"

# (what changes, file, text before, text after, start of the line to be reported)
CASES = [
    ("a field number", IMAGE, "description = 16", "description = 17", f"field {API}.DesktopImage.description: number:"),
    ("a type", IMAGE, "int64 storage_size", "uint64 storage_size", f"field {API}.DesktopImage.storage_size: type:"),
    (
        "a type name",
        ENDPOINT,
        "returns (ApiEndpoint)",
        "returns (ListApiEndpointsResponse)",
        "method yandex.cloud.endpoint.ApiEndpointService.Get: output:",
    ),
    ("a field's name", IMAGE, "string description", "string remark", f"field {API}.DesktopImage.remark: we declare it"),
    (
        "a dropped field",
        IMAGE,
        "  string description = 16;",
        "",
        f"field {API}.DesktopImage.description: the published files declare it",
    ),
    (
        "repeated",
        IMAGE_SERVICE,
        "repeated DesktopImage",
        "DesktopImage",
        f"field {API}.ListDesktopImagesResponse.desktop_images: label:",
    ),
    ("a oneof", OPERATION, "oneof result", "oneof outcome", "field yandex.cloud.operation.Operation.error: oneof:"),
    ("an enum value", IMAGE, "ACTIVE = 2", "ACTIVE = 4", f"value {API}.DesktopImage.Status.ACTIVE: number:"),
    ("a reserved range", IMAGE, "6 to 10", "6 to 9", f"message {API}.DesktopImage: reserved:"),
    ("an HTTP path", IMAGE_SERVICE, 'images:copy"', 'images:clone"', f"method {API}.DesktopImageService.Copy: http 0:"),
    ("an HTTP method", IMAGE_SERVICE, "patch:", "put:", f"method {API}.DesktopImageService.Update: http 0:"),
    (
        "an HTTP body",
        COMPUTE_SERVICE,
        'post: "/compute/v1/images"\n      body: "*"',
        'post: "/compute/v1/images"',
        "method yandex.cloud.compute.v1.ImageService.Create: http 0:",
    ),
    (
        "the type of an operation's metadata",
        IMAGE_SERVICE,
        'metadata: "CopyDesktopImageMetadata"',
        'metadata: "CopyFromDesktopMetadata"',
        f"method {API}.DesktopImageService.Copy: option yandex.cloud.api.operation:",
    ),
    (
        "streaming",
        ENDPOINT,
        "returns (ListApi",
        "returns (stream ListApi",
        "method yandex.cloud.endpoint.ApiEndpointService.List: server streaming:",
    ),
    (
        "a limit",
        IMAGE_SERVICE,
        '(yandex.cloud.length) = "<=100"',
        '(yandex.cloud.length) = "<=99"',
        f"field {API}.ListDesktopImagesRequest.page_token: option yandex.cloud.length:",
    ),
    (
        "a dropped limit",
        OPERATION_SERVICE,
        " [(yandex.cloud.required) = true]",
        "",
        "field yandex.cloud.operation.GetOperationRequest.operation_id: option yandex.cloud.required:",
    ),
    (
        "the rule for keys",
        IMAGE_SERVICE,
        'length: "1-63"',
        'length: "0-63"',
        f"field {API}.CopyDesktopImageRequest.labels: option yandex.cloud.map_key:",
    ),
    (
        "exactly one",
        IAM,
        "    option (yandex.cloud.exactly_one) = true;\n",
        "",
        "oneof yandex.cloud.iam.v1.CreateIamTokenRequest.identity: option yandex.cloud.exactly_one:",
    ),
    (
        "deprecation",
        ENDPOINT,
        "page_size = 1 [deprecated = true]",
        "page_size = 1",
        "field yandex.cloud.endpoint.ListApiEndpointsRequest.page_size: option deprecated:",
    ),
    (
        "the number of an option",
        VALIDATION,
        "pattern = 101502",
        "pattern = 101512",
        "extension yandex.cloud.pattern: number:",
    ),
    (
        "a message of our own",
        IAM,
        "// Reply of",
        "message Extra {}\n// Reply of",
        "message yandex.cloud.iam.v1.Extra: we declare it",
    ),
    ("a google file", BODY, "data = 2", "data = 4", "field google.api.HttpBody.data: number:"),
    (
        "a limit that nobody listed",
        IMAGE_SERVICE,
        "string image_id = 1;",
        'string image_id = 1 [(yandex.cloud.length) = "<=50"];',
        f"field {API}.CopyDesktopImageMetadata.image_id: option yandex.cloud.length:",
    ),
    (
        "an exemption that applies less often",
        OPERATION_SERVICE,
        "    option idempotency_level = NO_SIDE_EFFECTS;\n",
        "",
        "exemption ours 'method yandex.cloud.*: option idempotency_level': applies 8 times",
    ),
    (
        "an exemption that applies more often",
        COMPUTE_SERVICE,
        "string uri = 11;",
        'string uri = 11 [(yandex.cloud.length) = "<=2000"];',
        "exemption ours 'field yandex.cloud.compute.v1.*: option yandex.cloud.length': applies 20 times",
    ),
    (
        "an exemption that no longer applies",
        OPERATION_SERVICE,
        '      additional_bindings {\n        post: "/operations/{operation_id}:cancel"\n        body: "*"\n      }\n',
        "",
        "exemption ours 'method yandex.cloud.operation.OperationService.Cancel: http 1': applies 0 times",
    ),
]


def check(folder):
    return subprocess.run(
        [sys.executable, HERE / "check_contract.py", folder], capture_output=True, text=True, check=False
    )


def main():
    failures = 0
    for what, file, before, after, expected in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / "proto"
            shutil.copytree(PROTO, copy)
            text = (copy / file).read_text()
            if before not in text:
                print(f"failed: {what}: {file} does not contain {before!r}")
                failures += 1
                continue
            (copy / file).write_text(text.replace(before, after, 1))
            result = check(copy)
            if result.returncode != 1 or not any(line.startswith(expected) for line in result.stdout.splitlines()):
                print(f"failed: {what}: expected a line {expected!r}, got exit code {result.returncode} and")
                print(result.stdout, result.stderr, sep="\n")
                failures += 1
    print(f"{len(CASES) - failures} passed, {failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
