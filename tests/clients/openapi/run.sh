#!/usr/bin/env bash
# Generates clients of the server's OpenAPI document with three generators, compiles them, and has them
# call the server. Environment: ENDPOINT, host:port; WORK, a folder; and for each generator its program, or
# empty to leave it out: OAPI_CODEGEN with GO, OPENAPI_PYTHON (a Python with the packages of
# python/requirements.txt), OPENAPI_NODE (a folder with the node_modules of typescript/package-lock.json).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$WORK/openapi
mkdir "$work"
curl -sS --fail "http://$ENDPOINT/openapi.json" >"$work/openapi.json"
disk=$work/disk.raw
truncate -s 4M "$disk"
echo 'start=2048, type=83' | sfdisk -q "$disk"
head -c 300000 /dev/urandom | dd of="$disk" bs=1M seek=2 conv=notrunc status=none
failed=

python() {
    local own=$work/python bin
    bin=$(dirname "$OPENAPI_PYTHON")
    mkdir "$own"
    # What is generated is run as it is, without the generator's own formatting.
    echo 'post_hooks: []' >"$own/config.yml"
    "$bin/openapi-python-client" generate --path "$work/openapi.json" --meta none \
        --output-path "$own/api" --config "$own/config.yml" --fail-on-warning >"$own/log" 2>&1 ||
        { cat "$own/log"; return 1; }
    "$OPENAPI_PYTHON" -m compileall -q "$own/api" || return 1
    PYTHONPATH=$own "$OPENAPI_PYTHON" "$here/python/call.py" "$disk"
}

typescript() {
    local own=$work/typescript
    cp -r "$here/typescript" "$own"
    ln -s "$OPENAPI_NODE/node_modules" "$own/node_modules"
    (
        cd "$own"
        node_modules/.bin/openapi-typescript "$work/openapi.json" -o api.d.ts >log 2>&1 || { cat log; exit 1; }
        node_modules/.bin/tsc || exit 1
        node out/call.js "$disk"
    )
}

go() {
    local own=$work/go
    cp -r "$here/go" "$own"
    mkdir "$own/api"
    "$OAPI_CODEGEN" -generate types,client -package api -o "$own/api/api.go" "$work/openapi.json" \
        >"$own/log" 2>&1 || { cat "$own/log"; return 1; }
    (cd "$own" && "$GO" vet ./... && "$GO" run . "$disk")
}

run() { # NAME PROGRAM
    if [ -z "$2" ]; then echo "left out: $1"; return; fi
    "$1" || { echo "FAILED: the client by $1"; failed=1; }
}
run python "${OPENAPI_PYTHON:-}"
run typescript "${OPENAPI_NODE:-}"
run go "${OAPI_CODEGEN:-}"
[ -z "$failed" ]
