#!/usr/bin/env bash
# Clients of the Connect protocol: @connectrpc/connect-node, and `buf curl`, which knows nothing but what the server says
# of itself by reflection.
#
# Environment: ENDPOINT, host:port; COMPUTE_IMAGE_ID, a compute image in the state READY; WORK, a folder; CONNECT, a
# folder with the node_modules of package-lock.json.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../../.." && pwd)
buf=$CONNECT/node_modules/.bin/buf
work=$WORK/connect
mkdir "$work"
export BUF_CACHE_DIR=$work/cache
passed=0

# The health service is not of the contract, and needs its descriptors too.
cp -r "$repository/proto" "$work/proto"
mkdir -p "$work/proto/grpc/health/v1"
cp "$repository/crates/transcoding/examples/proto/health.proto" "$work/proto/grpc/health/v1/health.proto"
"$buf" build "$work/proto" --as-file-descriptor-set -o "$work/contract.binpb"
cp "$here/calls.mjs" "$work/"
ln -s "$CONNECT/node_modules" "$work/node_modules"
node "$work/calls.mjs" "$work/contract.binpb"

# Every method that is served is here, and those without side effects are called, each over every protocol. A method
# with `watch` is a stream that does not end by itself.
folder=buf-$$
copied=$("$buf" curl "http://$ENDPOINT/yandex.cloud.clouddesktop.v1.api.DesktopImageService/Copy" \
    -d "{\"folderId\": \"$folder\", \"name\": \"one\", \"imageId\": \"$COMPUTE_IMAGE_ID\"}")
account=$("$buf" curl "http://$ENDPOINT/desktopimages.v1.ServiceAccountService/Create" -d "{\"name\": \"$folder\"}" |
    sed -nE 's/^  "id": "(.*)",?/\1/p')
operation=$(sed -nE '0,/^  "id"/s/^  "id": "(.*)",?/\1/p' <<<"$copied")
image=$(sed -nE '0,/"imageId"/s/.*"imageId": "(.*)".*/\1/p' <<<"$copied")
own=desktopimages.v1
desktop=yandex.cloud.clouddesktop.v1.api.DesktopImageService
compute=yandex.cloud.compute.v1.ImageService
reads="$own.AccessService/List {}
$own.AuditService/Read {\"folderId\": \"$folder\"}
$own.OperationWatchService/Watch {\"operationId\": \"$operation\"}
$own.QuotaService/List {}
$own.ServiceAccountService/List {}
$own.ServiceAccountService/ListKeys {\"serviceAccountId\": \"$account\"}
$own.SignedUrlService/ListKeys {}
$own.TokenService/List {}
grpc.health.v1.Health/Check {}
$desktop/Get {\"imageId\": \"$image\"}
$desktop/List {\"folderId\": \"$folder\"}
$compute/Get {\"imageId\": \"$COMPUTE_IMAGE_ID\"}
$compute/List {\"folderId\": \"curl-tests\"}
$compute/GetLatestByFamily {\"folderId\": \"curl-tests\", \"family\": \"linux\"}
$compute/ListOperations {\"imageId\": \"$COMPUTE_IMAGE_ID\"}
yandex.cloud.endpoint.ApiEndpointService/Get {\"apiEndpointId\": \"iam\"}
yandex.cloud.endpoint.ApiEndpointService/List {}
yandex.cloud.operation.OperationService/Get {\"operationId\": \"$operation\"}"
# Those that change something, that take a stream of requests, or whose stream has no end.
others="$own.AccessService/Grant
$own.AccessService/Revoke
$own.QuotaService/Set
$own.ServiceAccountService/Create
$own.ServiceAccountService/CreateKey
$own.ServiceAccountService/Delete
$own.ServiceAccountService/DeleteKey
$own.SignedUrlService/Create
$own.SignedUrlService/RevokeKey
$own.SignedUrlService/RotateKey
$own.TokenService/Create
$own.TokenService/Revoke
yandex.cloud.iam.v1.IamTokenService/Create
yandex.cloud.iam.v1.IamTokenService/Revoke
grpc.health.v1.Health/Watch
grpc.reflection.v1.ServerReflection/ServerReflectionInfo
grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo
$desktop/Copy
$desktop/CopyFromDesktop
$desktop/Delete
$desktop/Update
$compute/Create
$compute/Delete
$compute/Update
yandex.cloud.operation.OperationService/Cancel"
served=$("$buf" curl --list-methods "http://$ENDPOINT")
diff <(sort <<<"$served") <(printf '%s\n' "$others" "$(cut -d' ' -f1 <<<"$reads")" | sort) || {
    echo 'FAILED: served (<) are other methods than those known here (>)'
    exit 1
}
while read -r method request; do
    for protocol in connect grpc grpcweb; do
        option=()
        if [ "$protocol" = grpc ]; then option=(--http2-prior-knowledge); fi
        reply=$("$buf" curl --protocol "$protocol" "${option[@]}" -d "$request" "http://$ENDPOINT/$method" 2>&1) ||
            { echo "FAILED: $method over $protocol: $reply"; exit 1; }
        if [ "$protocol" = connect ]; then first=$reply; fi
        [ "$reply" = "$first" ] || { echo "FAILED: $method says something else over $protocol: $reply"; exit 1; }
        passed=$((passed + 1))
    done
done <<<"$reads"
reply=$("$buf" curl "http://$ENDPOINT/$desktop/Get" -d '{"imageId": "nothing"}' 2>&1) &&
    { echo 'FAILED: an unknown image was found'; exit 1; }
grep -q '"code": "not_found"' <<<"$reply" && grep -q 'Image \\"nothing\\" not found' <<<"$reply" ||
    { echo "FAILED: $reply"; exit 1; }
echo "buf curl: $((passed + 1)) calls passed"
