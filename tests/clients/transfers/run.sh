#!/usr/bin/env bash
# Uploads and downloads with the tools that people have: curl, wget, aria2c, HTTPie and Python's requests. Each download
# is made whole, and again behind a part that is there already; an upload that broke off is sent again under its key.
#
# Environment: ENDPOINT, host:port; WORK, a folder; PYTHON, a Python with requests; WGET, ARIA2C and HTTPIE: each a
# program, or empty to leave that out.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$WORK/transfers
mkdir "$work"
cd "$work" || exit 1
export HOME=$work
api=http://$ENDPOINT
failed=
passed=0
check() { # NAME COMMAND...
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        echo "FAILED: $name: $(tail -n 3 <<<"$said")"
        failed=1
    fi
}

# Different bytes for every upload: equal ones would be one blob.
size=$((24 << 20))
disk() { # NAME
    head -c "$size" /dev/urandom >"$1"
    echo 'start=2048, type=83' | sfdisk -q --wipe always "$1" 2>/dev/null
}
upload() { echo "$api/compute/v1/images:upload?folderId=transfers&name=$1"; }

# What a tool printed is an operation that succeeded, and the image has these bytes; its address is in the file url.
uploaded() { # FILE REPLY
    local id
    id=$(sed -nE 's/.*CreateImageMetadata", ?"imageId": ?"([^"]+)".*/\1/p' "$2")
    [ -n "$id" ] && grep -qE '"status": ?"READY"' "$2" || { echo "no image: $(head -c 500 "$2")"; return 1; }
    curl -sS --fail -X POST -H 'Content-Type: application/json' "$api/cloud-desktop/v1/images:copy" \
        -d "{\"folderId\": \"transfers\", \"name\": \"of-$1\", \"imageId\": \"$id\"}" >copy.json || return 1
    id=$(sed -nE 's/.*CopyDesktopImageMetadata", ?"imageId": ?"([^"]+)".*/\1/p' copy.json)
    echo "$api/cloud-desktop/v1/images/$id:download" >url
    curl -sS --fail -o back "$(cat url)" && cmp "$1" back
}
# A download, whole and behind its first part.
download() { # NAME COMMAND...
    local name=$1 part
    shift
    for part in 0 $((size / 3)) $((size - 1)); do
        rm -f got
        if [ "$part" -gt 0 ]; then head -c "$part" original >got; fi
        "$@" || return 1
        cmp original got || { echo "$name, behind $part bytes"; return 1; }
    done
}

disk original
with_curl() { curl -sS --fail-with-body -X POST -T "$1" "$(upload curl)" >reply.json; }
check 'upload, curl' with_curl original
check 'upload, curl' uploaded original reply.json
original_url=$(cat url)
check 'download, curl' download curl curl -sS --fail -C - -o got "$original_url"

# A client that is cut off in the middle sends all of it again, under the same key.
disk broken
key=$(cat /proc/sys/kernel/random/uuid)
again() { curl -sS "$@" -H "Idempotency-Key: $key" -X POST -T broken "$(upload broken)" >reply.json; }
if again --limit-rate 8M --max-time 1 2>/dev/null; then
    echo 'FAILED: an upload did not break off'
    failed=1
fi
check 'upload again, curl' again --fail-with-body
check 'upload again, curl' uploaded broken reply.json
cp reply.json first.json
check 'upload once more, curl' again --fail-with-body
check 'an upload that is repeated is one operation' cmp first.json reply.json

if [ -n "${WGET:-}" ]; then
    disk by-wget
    # wget calls every body a form unless it is told otherwise, and the server takes none for a disk.
    with_wget() {
        "$WGET" -q -O reply.json --method=POST --header 'Content-Type: application/octet-stream' \
            --body-file=by-wget "$(upload wget)"
    }
    check 'upload, wget' with_wget
    check 'upload, wget' uploaded by-wget reply.json
    check 'download, wget' download wget "$WGET" -q -c -O got "$original_url"
fi
if [ -n "${HTTPIE:-}" ]; then
    disk by-httpie
    # HTTPie calls it JSON.
    with_httpie() {
        "$HTTPIE" --check-status --ignore-stdin -b POST "$(upload httpie)" @by-httpie \
            Content-Type:application/octet-stream >reply.json
    }
    check 'upload, HTTPie' with_httpie
    tr -d '\n' <reply.json | sed 's/  */ /g' >one-line.json
    check 'upload, HTTPie' uploaded by-httpie one-line.json
    # HTTPie goes on where there is a part, and wants one then.
    httpie_download() {
        local option=()
        if [ -e got ]; then option=(--continue); fi
        "$HTTPIE" --check-status --ignore-stdin --quiet --download "${option[@]}" -o got GET "$original_url"
    }
    check 'download, HTTPie' download HTTPie httpie_download
fi
if [ -n "${ARIA2C:-}" ]; then
    check 'download, aria2c' download aria2c "$ARIA2C" -q -c -x 4 -s 4 -k 1M --allow-overwrite=true -o got "$original_url"
fi
if [ -n "${PYTHON:-}" ]; then
    disk by-requests
    check 'upload, requests' "$PYTHON" "$here/with_requests.py" upload "$(upload requests)" by-requests reply.json
    check 'upload, requests' uploaded by-requests reply.json
    check 'download, requests' download requests "$PYTHON" "$here/with_requests.py" download "$original_url" got
fi
echo "$passed passed"
[ -z "$failed" ]
