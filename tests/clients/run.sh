#!/usr/bin/env bash
# Starts a server on a free port, imports a real disk, and runs the clients of other languages
# against it. Environment: PYTHON, GO, GRPCURL, NODE, NGINX, CONNECT, POSTGRES and what the scripts of the folders here
# name, each a program or a folder, or empty to leave that out; SERVER, the program under test (default target/debug/desktop-images).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
server=${SERVER:-target/debug/desktop-images}
work=$(mktemp -d)
pid=
proxies=
cleanup() {
    if [ -n "$proxies" ]; then kill "$proxies" 2>/dev/null && wait "$proxies" || true; fi
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null && wait "$pid" || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

"$server" serve --listen 127.0.0.1:0 --data-dir "$work/data" 2>"$work/server.log" &
pid=$!
for _ in $(seq 100); do
    port=$(sed -nE 's/.*127\.0\.0\.1:([0-9]+).*/\1/p' "$work/server.log" | head -n 1)
    [ -n "$port" ] && break
    kill -0 "$pid" || { cat "$work/server.log"; exit 1; }
    sleep 0.1
done
[ -n "$port" ] || { echo 'the server did not say where it listens'; cat "$work/server.log"; exit 1; }
export ENDPOINT=127.0.0.1:$port WORK=$work

failed=
client() { # NAME COMMAND...
    local started=$SECONDS name=$1
    printf -- '-- %s\n' "$name"
    shift
    "$@" || failed=1
    printf -- '-- %s: %s s\n' "$name" "$((SECONDS - started))"
}

# Mostly waits, and has a server of its own.
"$here/proxies/run.sh" >"$work/proxies.out" 2>&1 &
proxies=$!

client 'curl and QEMU' "$here/curl/run.sh"
COMPUTE_IMAGE_ID=$(cat "$work/compute-image-id" 2>/dev/null) || {
    echo 'no compute image was imported'
    exit 1
}
export COMPUTE_IMAGE_ID
if [ -n "${PYTHON:-}" ]; then client Python "$PYTHON" "$here/python/test_client.py"; fi
if [ -n "${PYTHON:-}" ]; then client OpenAPI "$PYTHON" "$here/python/check_openapi.py"; fi
if [ -n "${PYTHON:-}" ] && [ -n "${POSTGRES:-}" ]; then
    client Replicas env SERVER="$server" "$PYTHON" "$here/replicas/rolling_restart.py"
fi
client 'OpenAPI generators' "$here/openapi/run.sh"
if [ -n "${GO:-}" ]; then client Go env -C "$here/go" "$GO" test -count=1 ./...; fi
for version in v1 v2; do
    # The SDKs' own code is not ours to vet.
    if [ -n "${GO:-}" ]; then
        client "Go SDK $version" env -C "$here/go-sdk/$version" "$GO" test -count=1 -vet=off ./...
    fi
done
if [ -n "${CONNECT:-}" ]; then client Connect "$here/connect/run.sh"; fi
if [ -n "${NGINX:-}" ]; then client 'Stock clients over TLS' "$here/tls/run.sh"; fi
if [ -n "${CHROMIUM:-}" ] && [ -n "${BROWSER:-}" ]; then client Browser "$here/browser/run.sh"; fi
client Transfers "$here/transfers/run.sh"
proxies() {
    local code=0
    wait "$proxies" || code=$?
    proxies=
    cat "$work/proxies.out"
    return "$code"
}
client Refusals "$here/refusals/run.sh"
if [ -n "${GRPCURL:-}" ]; then client grpcurl "$here/grpcurl/run.sh"; fi
client Proxies proxies

kill "$pid"
wait "$pid" || { echo 'the server did not stop cleanly'; failed=1; }
pid=
if [ -n "$failed" ]; then
    echo '-- the end of the log of the server'
    tail -n 20 "$work/server.log"
    exit 1
fi
