#!/usr/bin/env bash
# Lists, describes and calls every method of a server with grpcurl, knowing nothing
# but what the server says of itself by reflection.
#
#   ENDPOINT=host:port COMPUTE_IMAGE_ID=id GRPCURL=path tests/clients/grpcurl/run.sh
#
# ENDPOINT speaks gRPC without TLS, or with it where CA_FILE names the authority of the server; then TOKEN is a token of
# an admin. COMPUTE_IMAGE_ID is a compute image in the state READY. Written for grpcurl v1.9.4:
#   go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
set -euo pipefail

: "${ENDPOINT:?set ENDPOINT to the host:port of the server}"
: "${COMPUTE_IMAGE_ID:?set COMPUTE_IMAGE_ID to a compute image in the state READY}"
grpcurl=${GRPCURL:-grpcurl}
connection=(-plaintext)
if [[ -n ${CA_FILE:-} ]]; then connection=(-cacert "$CA_FILE" -H "authorization: Bearer ${TOKEN:?set TOKEN}"); fi

images=yandex.cloud.clouddesktop.v1.api.DesktopImageService
operations=yandex.cloud.operation.OperationService
compute=yandex.cloud.compute.v1.ImageService
watch=desktopimages.v1.OperationWatchService
quotas=desktopimages.v1.QuotaService
audit=desktopimages.v1.AuditService
endpoints=yandex.cloud.endpoint.ApiEndpointService
iam=yandex.cloud.iam.v1.IamTokenService
tokens=desktopimages.v1.TokenService
access=desktopimages.v1.AccessService
accounts=desktopimages.v1.ServiceAccountService
signed=desktopimages.v1.SignedUrlService
health=grpc.health.v1.Health
reflection=grpc.reflection.v1.ServerReflection
reflection_alpha=grpc.reflection.v1alpha.ServerReflection

folder=grpcurl-$(date +%s)-$$
call_seconds=30
operation_seconds=60

passed=0
called=" "
reply=

fail() {
  printf 'failed: %s\n' "$1" >&2
  if [[ -n ${2:-} ]]; then printf '%s\n' "$2" | sed 's/^/    /' >&2; fi
  exit 1
}

pass() {
  passed=$((passed + 1))
  printf 'ok: %s\n' "$1"
}

# invoke METHOD JSON: calls a method and leaves output and exit code in `reply` and `code`.
invoke() {
  code=0
  reply=$("$grpcurl" "${connection[@]}" -emit-defaults -max-time "$call_seconds" -d "$2" "$ENDPOINT" "$1" 2>&1) || code=$?
  called+="$1 "
}

# call METHOD JSON: calls a method that must succeed.
call() {
  invoke "$1" "$2"
  [[ $code == 0 ]] || fail "$1 $2: exit code $code" "$reply"
}

# refuse METHOD JSON CODE TEXT...: calls a method that must fail with a gRPC code and say each text.
refuse() {
  local method=$1 request=$2 expected=$3 text
  shift 3
  invoke "$method" "$request"
  [[ $code != 0 ]] || fail "$method $request: succeeded, expected $expected" "$reply"
  expect "  Code: $expected" "$method $request: expected $expected"
  for text in "$@"; do expect "$text" "$method $request: the error does not say '$text'"; done
}

# expect TEXT WHAT: the last reply contains a text.
expect() {
  [[ $reply == *"$1"* ]] || fail "$2: no '$1' in the reply" "$reply"
}

# refute TEXT WHAT: the last reply does not contain a text.
refute() {
  [[ $reply != *"$1"* ]] || fail "$2: '$1' in the reply" "$reply"
}

# field NAME: the first string under this name in the last reply.
field() {
  local value
  value=$(sed -n 's/^ *"'"$1"'": "\(.*\)",\{0,1\}$/\1/p' <<<"$reply")
  [[ -n $value ]] || fail "no field '$1' in the reply" "$reply"
  printf '%s\n' "${value%%$'\n'*}"
}

# finish WHAT: waits for the operation in the last reply, which then holds its end. It must succeed.
finish() {
  local id deadline=$((SECONDS + operation_seconds))
  id=$(field id)
  until [[ $reply == *'"done": true'* ]]; do
    ((SECONDS < deadline)) || fail "$1: operation $id has not ended" "$reply"
    sleep 0.1
    call "$operations/Get" "{\"operationId\": \"$id\"}"
  done
  refute '"error":' "$1: the operation failed"
  expect '"response":' "$1: the operation has no response"
}

# What the server lists and describes.

listed=$("$grpcurl" "${connection[@]}" -max-time "$call_seconds" "$ENDPOINT" list) || fail "list by reflection"
for service in "$images" "$operations" "$compute" "$watch" "$quotas" "$audit" "$endpoints" \
  "$iam" "$tokens" "$access" "$accounts" "$signed" \
  "$health" "$reflection" "$reflection_alpha"; do
  grep -qxF "$service" <<<"$listed" || fail "$service is not listed" "$listed"
done
methods=
while read -r service; do
  of_service=$("$grpcurl" "${connection[@]}" -max-time "$call_seconds" "$ENDPOINT" list "$service") ||
    fail "list the methods of $service"
  described=$("$grpcurl" "${connection[@]}" -max-time "$call_seconds" "$ENDPOINT" describe "$service") ||
    fail "describe $service"
  while read -r method; do
    [[ $described == *"rpc ${method##*.} ("* ]] || fail "$service is described without ${method##*.}" "$described"
    # grpcurl lists `service.Method` and calls `service/Method`.
    methods+="${method%.*}/${method##*.}"$'\n'
  done <<<"$of_service"
done <<<"$listed"
pass "list and describe $(wc -l <<<"$listed") services"

described=$("$grpcurl" "${connection[@]}" -max-time "$call_seconds" "$ENDPOINT" describe "$images")
for text in '"/cloud-desktop/v1/images:copy"' 'metadata: "CopyDesktopImageMetadata"' 'NO_SIDE_EFFECTS'; do
  [[ $described == *"$text"* ]] || fail "$images is described without its option $text" "$described"
done
described=$("$grpcurl" "${connection[@]}" -max-time "$call_seconds" "$ENDPOINT" describe \
  yandex.cloud.clouddesktop.v1.api.CopyDesktopImageRequest) || fail "describe CopyDesktopImageRequest"
for text in 'string image_id = 8' '.yandex.cloud.required' '.yandex.cloud.map_key'; do
  [[ $described == *"$text"* ]] || fail "CopyDesktopImageRequest is described without $text" "$described"
done
pass "options are described"
# An enum value stands beside its enum; an extension is a symbol like any other.
for symbol in yandex.cloud.clouddesktop.v1.api.DesktopImage.ACTIVE google.api.http yandex.cloud.required \
  "$images.Copy" yandex.cloud.operation.Operation.result yandex.cloud.operation.Operation.done; do
  described=$("$grpcurl" "${connection[@]}" -max-time "$call_seconds" "$ENDPOINT" describe "$symbol" 2>&1) ||
    fail "describe $symbol" "$described"
done
described=$("$grpcurl" "${connection[@]}" -max-time "$call_seconds" "$ENDPOINT" describe no.such.Symbol 2>&1) &&
  fail "describe no.such.Symbol" "$described"
[[ $described == *"not found"* ]] || fail "describe no.such.Symbol" "$described"
pass "symbols of all kinds are described"

# Reflection and health, called like any other service.

for service in "$reflection" "$reflection_alpha"; do
  call "$service/ServerReflectionInfo" '{"listServices": "*"}'
  expect "\"name\": \"$images\"" "$service"
  pass "$service"
done

for service in "" "$images" "$operations" "$compute" "$watch" "$quotas" "$audit"; do
  call "$health/Check" "{\"service\": \"$service\"}"
  expect '"status": "SERVING"' "$health/Check '$service'"
done
refuse "$health/Check" '{"service": "no.such.Service"}' NotFound
pass "$health/Check"

# Watch never ends by itself: the first message must come, then we hang up.
exec 3< <(exec "$grpcurl" "${connection[@]}" -max-time "$call_seconds" -d '{}' "$ENDPOINT" "$health/Watch" 2>&1)
watcher=$!
called+="$health/Watch "
watched=
while [[ $watched != *'"status": "SERVING"'* ]] && read -r line <&3; do watched+=$line$'\n'; done
kill "$watcher" 2>/dev/null || true
exec 3<&-
[[ $watched == *'"status": "SERVING"'* ]] || fail "$health/Watch" "$watched"
pass "$health/Watch"

# The catalogue of compute images.
#
# A field mask is an object here: grpcurl does not read the string that the JSON
# mapping of protobuf prescribes.

call "$compute/Get" "{\"imageId\": \"$COMPUTE_IMAGE_ID\"}"
expect '"status": "READY"' "compute image $COMPUTE_IMAGE_ID"
refuse "$compute/Get" '{"imageId": "x"}' NotFound 'Image "x" not found'
pass "$compute/Get"

call "$compute/Create" "{\"folderId\": \"$folder\", \"name\": \"source\", \"family\": \"sources\",
  \"imageId\": \"$COMPUTE_IMAGE_ID\", \"labels\": {\"made-by\": \"grpcurl\"}, \"os\": {\"type\": \"LINUX\"}}"
create_operation=$(field id)
expect 'type.googleapis.com/yandex.cloud.compute.v1.CreateImageMetadata' "$compute/Create"
source=$(field imageId)
[[ $source =~ ^fd8[a-z0-9]{17}$ ]] || fail "$compute/Create: '$source' is not the id of a compute image" "$reply"
finish "$compute/Create"
expect 'type.googleapis.com/yandex.cloud.compute.v1.Image"' "$compute/Create"
expect '"status": "READY"' "$compute/Create"
expect '"type": "LINUX"' "$compute/Create"
refuse "$compute/Create" "{\"folderId\": \"$folder\", \"name\": \"source\", \"imageId\": \"$COMPUTE_IMAGE_ID\"}" AlreadyExists
refuse "$compute/Create" '{"name": "Not Allowed"}' InvalidArgument folder_id name source
pass "$compute/Create"

call "$compute/GetLatestByFamily" "{\"folderId\": \"$folder\", \"family\": \"sources\"}"
[[ $(field id) == "$source" ]] || fail "$compute/GetLatestByFamily: not the image $source" "$reply"
refuse "$compute/GetLatestByFamily" "{\"folderId\": \"$folder\", \"family\": \"others\"}" NotFound
pass "$compute/GetLatestByFamily"

call "$compute/List" "{\"folderId\": \"$folder\"}"
expect "\"id\": \"$source\"" "$compute/List"
refuse "$compute/List" '{}' InvalidArgument folder_id
pass "$compute/List"

call "$compute/Update" "{\"imageId\": \"$source\", \"updateMask\": {\"paths\": [\"name\", \"description\"]}, \"name\": \"renamed\"}"
expect 'type.googleapis.com/yandex.cloud.compute.v1.UpdateImageMetadata' "$compute/Update"
finish "$compute/Update"
expect '"name": "renamed"' "$compute/Update"
expect '"made-by": "grpcurl"' "$compute/Update"
pass "$compute/Update"

call "$compute/ListOperations" "{\"imageId\": \"$source\"}"
expect "\"id\": \"$create_operation\"" "$compute/ListOperations"
pass "$compute/ListOperations"

# Desktop images.

call "$images/Copy" "{\"folderId\": \"$folder\", \"name\": \"copied\", \"imageId\": \"$source\",
  \"labels\": {\"made-by\": \"grpcurl\"}, \"description\": \"by grpcurl\"}"
copy_operation=$(field id)
[[ $copy_operation =~ ^e3v[a-z0-9]{17}$ ]] || fail "$images/Copy: '$copy_operation' is not the id of an operation" "$reply"
expect 'type.googleapis.com/yandex.cloud.clouddesktop.v1.api.CopyDesktopImageMetadata' "$images/Copy"
image=$(field imageId)
finish "$images/Copy"
expect 'type.googleapis.com/yandex.cloud.clouddesktop.v1.api.DesktopImage"' "$images/Copy"
expect "\"id\": \"$image\"" "$images/Copy"
expect '"status": "ACTIVE"' "$images/Copy"
refuse "$images/Copy" '{}' InvalidArgument 'Validation failed:' '  - name: Field is required' \
  '"field": "folder_id"' '"field": "name"' '"field": "image_id"'
refuse "$images/Copy" "{\"folderId\": \"$folder\", \"name\": \"other\", \"imageId\": \"x\"}" NotFound 'Image "x" not found'
refuse "$images/Copy" "{\"folderId\": \"$folder\", \"name\": \"copied\", \"imageId\": \"$source\"}" AlreadyExists
pass "$images/Copy"

refuse "$images/CopyFromDesktop" '{"desktopId": "x"}' Unimplemented
pass "$images/CopyFromDesktop"

call "$images/Get" "{\"imageId\": \"$image\"}"
for text in "\"folderId\": \"$folder\"" '"name": "copied"' '"description": "by grpcurl"' '"made-by": "grpcurl"'; do
  expect "$text" "$images/Get"
done
refuse "$images/Get" '{"imageId": "x"}' NotFound 'Image "x" not found'
pass "$images/Get"

call "$images/List" "{\"folderId\": \"$folder\", \"filter\": \"name = 'copied'\", \"orderBy\": \"name desc\"}"
expect "\"id\": \"$image\"" "$images/List"
call "$images/List" "{\"folderId\": \"$folder\", \"filter\": \"name != 'copied'\"}"
refute "\"id\": \"$image\"" "$images/List"
refuse "$images/List" "{\"folderId\": \"$folder\", \"pageSize\": 1001}" InvalidArgument page_size
pass "$images/List"

call "$images/Update" "{\"imageId\": \"$image\", \"updateMask\": {\"paths\": [\"name\"]}, \"name\": \"renamed\"}"
expect 'type.googleapis.com/yandex.cloud.clouddesktop.v1.api.UpdateDesktopImageMetadata' "$images/Update"
finish "$images/Update"
expect '"name": "renamed"' "$images/Update"
expect '"description": "by grpcurl"' "$images/Update"
refuse "$images/Update" "{\"imageId\": \"$image\", \"updateMask\": {\"paths\": [\"size\"]}, \"name\": \"renamed\"}" InvalidArgument
pass "$images/Update"

# Operations.

call "$operations/Get" "{\"operationId\": \"$copy_operation\"}"
expect "\"id\": \"$copy_operation\"" "$operations/Get"
expect '"done": true' "$operations/Get"
refuse "$operations/Get" '{"operationId": "x"}' NotFound
pass "$operations/Get"

call "$operations/Cancel" "{\"operationId\": \"$copy_operation\"}"
expect '"done": true' "$operations/Cancel"
refute '"error":' "$operations/Cancel of an operation that has ended"
refuse "$operations/Cancel" '{"operationId": "x"}' NotFound
pass "$operations/Cancel"

# A stream that ends with the operation.
call "$watch/Watch" "{\"operationId\": \"$copy_operation\"}"
expect "\"id\": \"$copy_operation\"" "$watch/Watch"
expect '"done": true' "$watch/Watch"
refuse "$watch/Watch" '{"operationId": "x"}' NotFound
refuse "$watch/Watch" '{}' InvalidArgument operation_id
pass "$watch/Watch"

# Quotas.

call "$quotas/Set" "{\"folderId\": \"$folder\", \"name\": \"vdi.desktopImages.count\", \"limit\": \"1\"}"
expect '"limit": "1"' "$quotas/Set"
expect '"used": "1"' "$quotas/Set"
refuse "$images/Copy" "{\"folderId\": \"$folder\", \"name\": \"second\", \"imageId\": \"$source\"}" \
  ResourceExhausted 'Quota limit vdi.desktopImages.count exceeded' "\"subject\": \"folder:$folder\""
refuse "$quotas/Set" '{"name": "unknown"}' InvalidArgument compute.images.size
pass "$quotas/Set"

call "$quotas/List" "{\"folderId\": \"$folder\"}"
expect '"name": "vdi.desktopImages.count"' "$quotas/List"
call "$quotas/Set" "{\"folderId\": \"$folder\", \"name\": \"vdi.desktopImages.count\"}"
refute '"limit"' "$quotas/Set without a limit"
call "$quotas/List" "{\"folderId\": \"$folder\"}"
refute '"name"' "$quotas/List after the limit was taken away"
pass "$quotas/List"

# Audit events.

call "$audit/Read" "{\"folderId\": \"$folder\"}"
for text in '"status": "STARTED"' '"status": "DONE"' '"eventType": "desktopimages.audit.compute.CreateImage"' \
  '"eventType": "desktopimages.audit.clouddesktop.CopyDesktopImage"' "\"operationId\": \"$copy_operation\""; do
  expect "$text" "$audit/Read"
done
refuse "$audit/Read" '{"afterSequence": "-1"}' InvalidArgument after_sequence
pass "$audit/Read"

# Where the services are.

call "$endpoints/List" '{}'
for id in clouddesktops compute endpoint iam operation; do
  expect "\"id\": \"$id\"" "$endpoints/List"
done
pass "$endpoints/List"
call "$endpoints/Get" '{"apiEndpointId": "operation"}'
expect "\"address\": \"$ENDPOINT\"" "$endpoints/Get"
refuse "$endpoints/Get" '{"apiEndpointId": "x"}' NotFound 'Endpoint "x" not found'
pass "$endpoints/Get"

# Identity: a token, what it is exchanged for, a service account with a key, roles and signed URLs.

call "$tokens/Create" '{"description": "of grpcurl", "expiresIn": "600s"}'
secret=$(field secret)
token=$(field id)
pass "$tokens/Create"
call "$tokens/List" '{}'
expect "\"id\": \"$token\"" "$tokens/List"
refute "$secret" "$tokens/List tells the secret"
pass "$tokens/List"
call "$iam/Create" "{\"yandexPassportOauthToken\": \"$secret\"}"
short=$(field iamToken)
expect '"expiresAt"' "$iam/Create"
refuse "$iam/Create" '{"jwt": "x.y.z"}' Unauthenticated
pass "$iam/Create"
call "$iam/Revoke" "{\"iamToken\": \"$short\"}"
expect "\"subjectId\": \"token:$token\"" "$iam/Revoke"
pass "$iam/Revoke"
call "$access/Grant" "{\"subject\": \"token:$token\", \"folderId\": \"$folder\", \"role\": \"viewer\"}"
expect '"role": "viewer"' "$access/Grant"
refuse "$access/Grant" '{"subject": "token:x", "role": "owner"}' InvalidArgument role
pass "$access/Grant"
call "$access/List" "{\"folderId\": \"$folder\"}"
expect "\"subject\": \"token:$token\"" "$access/List"
pass "$access/List"
call "$access/Revoke" "{\"subject\": \"token:$token\", \"folderId\": \"$folder\"}"
pass "$access/Revoke"
call "$tokens/Revoke" "{\"tokenId\": \"$token\"}"
refuse "$iam/Create" "{\"yandexPassportOauthToken\": \"$secret\"}" Unauthenticated
pass "$tokens/Revoke"

call "$accounts/Create" "{\"name\": \"$folder\"}"
account=$(field id)
pass "$accounts/Create"
call "$accounts/List" '{}'
expect "\"id\": \"$account\"" "$accounts/List"
pass "$accounts/List"
call "$accounts/CreateKey" "{\"serviceAccountId\": \"$account\"}"
expect 'PRIVATE KEY' "$accounts/CreateKey"
key=$(field id)
pass "$accounts/CreateKey"
call "$accounts/ListKeys" "{\"serviceAccountId\": \"$account\"}"
expect "\"id\": \"$key\"" "$accounts/ListKeys"
refute 'PRIVATE KEY' "$accounts/ListKeys"
pass "$accounts/ListKeys"
call "$accounts/DeleteKey" "{\"keyId\": \"$key\"}"
pass "$accounts/DeleteKey"
call "$accounts/Delete" "{\"serviceAccountId\": \"$account\"}"
pass "$accounts/Delete"

call "$signed/RotateKey" '{}'
url_key=$(field id)
pass "$signed/RotateKey"
call "$signed/Create" "{\"imageId\": \"$image\", \"expiresIn\": \"60s\"}"
expect "/cloud-desktop/v1/images/$image:download?" "$signed/Create"
pass "$signed/Create"
call "$signed/ListKeys" '{}'
expect "\"id\": \"$url_key\"" "$signed/ListKeys"
pass "$signed/ListKeys"
call "$signed/RevokeKey" "{\"keyId\": \"$url_key\"}"
pass "$signed/RevokeKey"

# Deleting. The desktop image outlives the compute image that it was copied from.

call "$compute/Delete" "{\"imageId\": \"$source\"}"
expect 'type.googleapis.com/yandex.cloud.compute.v1.DeleteImageMetadata' "$compute/Delete"
finish "$compute/Delete"
refuse "$compute/Get" "{\"imageId\": \"$source\"}" NotFound
call "$images/Get" "{\"imageId\": \"$image\"}"
expect '"status": "ACTIVE"' "$compute/Delete"
pass "$compute/Delete"

call "$images/Delete" "{\"imageId\": \"$image\"}"
expect 'type.googleapis.com/yandex.cloud.clouddesktop.v1.api.DeleteDesktopImageMetadata' "$images/Delete"
finish "$images/Delete"
expect 'type.googleapis.com/google.protobuf.Empty' "$images/Delete"
refuse "$images/Get" "{\"imageId\": \"$image\"}" NotFound
pass "$images/Delete"

# Nothing that is listed was left uncalled.

while read -r method; do
  [[ -z $method || $called == *" $method "* ]] || fail "$method is listed, and this script does not call it"
done <<<"$methods"
pass "every listed method was called"

printf '%s passed, 0 failed\n' "$passed"
