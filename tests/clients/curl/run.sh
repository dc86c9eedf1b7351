#!/usr/bin/env bash
# The main job with curl alone, on a disk with real files: upload, copy over REST as in the
# contract, download, and QEMU's verdict. Environment: ENDPOINT, host:port; WORK, a folder, which
# gets the id of the compute image in the file compute-image-id.
set -euo pipefail
api=http://$ENDPOINT
folder=curl-tests
passed=0
ok() {
    passed=$((passed + 1))
    echo "ok: $*"
}
fail() {
    echo "FAILED: $*"
    exit 1
}
holds() { grep -qE "$1" "$2" || fail "$2 has no $1: $(cat "$2")"; }
repository=$(cd "$(dirname "$0")/../../.." && pwd)
cd "$WORK"

# A file system with real files, of more than 300 MiB as qcow2.
mkdir files
size=0
while IFS= read -r file; do
    cp --parents "$file" files/ 2>/dev/null || continue
    size=$((size + $(stat -c %s "$file")))
    [ "$size" -lt $((320 << 20)) ] || break
done < <(find "$repository/target" /usr/lib /usr/bin "${HOME:-/root}/.cargo" "${HOME:-/root}/.rustup" -xdev -type f \
    -size +64k -size -64M 2>/dev/null || true)
[ "$size" -ge $((310 << 20)) ] || fail "found only $size bytes of files"
truncate -s 2G disk.raw
mkfs.ext4 -q -F -d files disk.raw
qemu-img convert -O qcow2 disk.raw disk.qcow2
rm -rf files disk.raw
bytes=$(stat -c %s disk.qcow2)
[ "$bytes" -ge $((300 << 20)) ] || fail "the image has only $bytes bytes"
digest=$(openssl dgst -sha256 -binary disk.qcow2 | base64)

curl -sS --fail-with-body -X POST -T disk.qcow2 -H "Content-Digest: sha-256=:$digest:" \
    "$api/compute/v1/images:upload?folderId=$folder&name=golden&family=linux" >upload.json ||
    fail "upload: $(cat upload.json)"
holds '"done": ?true' upload.json
holds '"status": ?"READY"' upload.json
holds '"minDiskSize": ?"2147483648"' upload.json
compute_image=$(sed -E 's/.*CreateImageMetadata", ?"imageId": ?"([^"]+)".*/\1/' upload.json)
echo "$compute_image" >compute-image-id
ok "a qcow2 of $((bytes >> 20)) MiB was uploaded"

curl -sS --fail-with-body -X POST "$api/cloud-desktop/v1/images:copy" \
    -H 'Content-Type: application/json' \
    -d "{\"folderId\": \"$folder\", \"name\": \"desktop\", \"imageId\": \"$compute_image\"}" \
    >copy.json || fail "copy: $(cat copy.json)"
holds '"done": ?true' copy.json
holds '"status": ?"ACTIVE"' copy.json
image=$(sed -E 's/.*CopyDesktopImageMetadata", ?"imageId": ?"([^"]+)".*/\1/' copy.json)
ok 'the copy was done in the first reply'

operation=$(sed -E 's/^\{"id": ?"([^"]+)".*/\1/' copy.json)
curl -sS --fail-with-body "$api/operations/$operation" >operation.json
holds '"done": ?true' operation.json
curl -sS --fail-with-body "$api/cloud-desktop/v1/images?folderId=$folder" >list.json
holds "\"id\": ?\"$image\"" list.json
ok 'the operation and the image can be read'

url="$api/cloud-desktop/v1/images/$image:download"
curl -sS --fail -o download.qcow2 "$url"
cmp disk.qcow2 download.qcow2 || fail 'the download differs from the upload'
qemu-img compare disk.qcow2 download.qcow2 || fail 'qemu-img compare'
curl -sS --fail -o part -r 1000-1999 "$url"
cmp part <(tail -c +1001 disk.qcow2 | head -c 1000) || fail 'a range differs'
ok 'the download is identical'

qemu-img info "$url" >info || fail 'qemu-img info on the download URL'
holds 'virtual size: 2 GiB' info
ok 'QEMU reads the image over HTTP'

[ "$(curl -sS -o error.json -w '%{http_code}' "$api/cloud-desktop/v1/images/nothing")" = 404 ] ||
    fail 'an unknown image is not 404'
holds 'Image \\"nothing\\" not found' error.json
curl -sS --fail -X DELETE "$api/cloud-desktop/v1/images/$image" >delete.json
holds 'google.protobuf.Empty' delete.json
ok 'errors and deletion'
echo "$passed passed, 0 failed"
