#!/usr/bin/env bash
# Stock clients over TLS, whose discovery leads them back to the same address: a server that speaks TLS itself and asks who
# calls, and one behind nginx.
#
# Environment: SERVER, the program under test; WORK, a folder; and NGINX, PYTHON, GO, GRPCURL, CONNECT, NODE_SDK (a folder
# with the node_modules of node/package-lock.json), JAVA_SDK (a folder with the jars of java/pom.xml): each a program or a
# folder, or empty to leave that out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../../.." && pwd)
server=${SERVER:-$repository/target/debug/desktop-images}
work=$WORK/tls
mkdir "$work"
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
}
trap cleanup EXIT
failed=
client() { # NAME COMMAND...
    local started=$SECONDS name=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "ok: $name, $((SECONDS - started)) s"
    else
        printf 'FAILED: %s: %s\n' "$name" "$said"
        failed=1
    fi
}
wait_for() { # COMMAND...
    for _ in $(seq 100); do
        "$@" && return
        sleep 0.1
    done
    return 1
}
free_port() {
    python3 -c 'import socket
it = socket.socket()
it.bind(("127.0.0.1", 0))
print(it.getsockname()[1])'
}

# An authority, and a certificate for localhost.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=test authority' \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=localhost' \
    -keyout "$work/leaf.key" -out "$work/leaf.csr" 2>/dev/null
openssl x509 -req -in "$work/leaf.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
    -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out "$work/leaf.pem" 2>/dev/null
export CA_FILE=$work/ca.pem
if [ -n "${JAVA_SDK:-}" ]; then
    keytool -importcert -noprompt -alias authority -file "$CA_FILE" -storepass changeit -keystore "$work/trust.p12" \
        2>/dev/null
fi
if [ -n "${NODE_SDK:-}" ]; then
    cp "$here/node/client.mjs" "$work/"
    ln -s "$NODE_SDK/node_modules" "$work/node_modules"
fi

# Waits until TLS_ENDPOINT answers, and leaves a compute image there.
prepare() {
    wait_for curl -s --cacert "$CA_FILE" -o "$work/endpoints.json" "https://$TLS_ENDPOINT/endpoints"
    grep -q "\"clouddesktops\",\"address\":\"$TLS_ENDPOINT\"" "$work/endpoints.json" ||
        { echo "FAILED: endpoints: $(cat "$work/endpoints.json")"; exit 1; }
    truncate -s 4M "$work/disk.raw"
    echo 'start=2048, type=83' | sfdisk -q "$work/disk.raw"
    curl -sS --fail-with-body --cacert "$CA_FILE" -H "Authorization: Bearer $TOKEN" -X POST -T "$work/disk.raw" \
        "https://$TLS_ENDPOINT/compute/v1/images:upload?folderId=tls&name=golden" >"$work/upload.json" ||
        { echo "FAILED: upload: $(cat "$work/upload.json")"; exit 1; }
    COMPUTE_IMAGE_ID=$(sed -E 's/.*CreateImageMetadata", ?"imageId": ?"([^"]+)".*/\1/' "$work/upload.json")
    export COMPUTE_IMAGE_ID
}

go_sdk() { # TEST
    for version in v1 v2; do
        if [ -n "${GO:-}" ]; then
            client "Go SDK $version, $1" env -C "$here/../go-sdk/$version" SSL_CERT_FILE="$CA_FILE" \
                "$GO" test -count=1 -vet=off -run "$1" ./...
        fi
    done
}
java_sdk() { # NAME
    if [ -n "${JAVA_SDK:-}" ]; then
        client "$1" java -Djavax.net.ssl.trustStore="$work/trust.p12" -Djavax.net.ssl.trustStorePassword=changeit \
            -cp "$JAVA_SDK/*" "$here/java/Client.java"
    fi
}

# A server that speaks TLS itself. It is told its address for the JWTs of the Python SDK alone: discovery would know it by
# the Host that clients ask for.
TLS_ENDPOINT=localhost:$(free_port)
"$server" serve --listen "$TLS_ENDPOINT" --ephemeral --tls-cert "$work/leaf.pem" --tls-key "$work/leaf.key" \
    --require-auth --bootstrap-token-file "$work/admin.token" --advertise "$TLS_ENDPOINT" \
    >"$work/address" 2>"$work/server.log" &
pids+=($!)
wait_for grep -q https "$work/address" || { cat "$work/server.log"; exit 1; }
TOKEN=$(cat "$work/admin.token")
export TLS_ENDPOINT TOKEN
prepare
command() { "$server" --endpoint "https://$TLS_ENDPOINT" --ca-file "$CA_FILE" --token-file "$work/admin.token" "$@"; }
account=$(command service-account create robot --format json | sed -nE 's/.*"id": ?"([^"]+)".*/\1/p' | head -n 1)
command service-account key create "$account" --output "$work/key.json" >/dev/null
command access grant "sa:$account" --role editor >/dev/null

if [ -n "${GRPCURL:-}" ]; then client grpcurl env ENDPOINT="$TLS_ENDPOINT" "$here/../grpcurl/run.sh"; fi
image=yandex.cloud.compute.v1.ImageService/Get
asked="{\"imageId\": \"$COMPUTE_IMAGE_ID\"}"
if [ -n "${CONNECT:-}" ]; then
    for protocol in connect grpc grpcweb; do
        client "buf curl, $protocol" "$CONNECT/node_modules/.bin/buf" curl --cacert "$CA_FILE" --protocol "$protocol" \
            -H "Authorization: Bearer $TOKEN" -d "$asked" "https://$TLS_ENDPOINT/$image"
    done
fi
if [ -n "${NODE_SDK:-}" ]; then client 'Node SDK' node "$work/client.mjs"; fi
if [ -n "${PYTHON:-}" ]; then
    client 'Python SDK with a token' "$PYTHON" "$here/../python/test_sdk.py"
    client 'Python SDK with a key' env KEY_FILE="$work/key.json" "$PYTHON" "$here/../python/test_sdk.py"
fi
go_sdk TLSByDiscovery
java_sdk 'Java SDK with a token'
export KEY_FILE=$work/key.json
go_sdk TLSWithAKey
java_sdk 'Java SDK with a key'
unset KEY_FILE

# A server behind nginx, which sends clients to the address of nginx.
if [ -n "${NGINX:-}" ]; then
    port=$(free_port)
    export TLS_ENDPOINT=localhost:$port TOKEN=any
    "$server" serve --listen 127.0.0.1:0 --ephemeral --advertise "$TLS_ENDPOINT" >"$work/address" 2>"$work/proxied.log" &
    pids+=($!)
    wait_for grep -q http "$work/address"
    address=$(sed -n '1s|.*http://||p' "$work/address")
    sed -e "s|@SERVER@|$address|; s|@PORT@|$port|; s|@WORK@|$work|" "$here/nginx.conf" >"$work/nginx.conf"
    # nginx takes a variable of this name for sockets to inherit.
    env -u NGINX "$NGINX" -p "$work" -c "$work/nginx.conf" -e "$work/error.log" &
    pids+=($!)
    prepare
    if [ -n "${PYTHON:-}" ]; then client 'Python SDK, nginx' "$PYTHON" "$here/../python/test_sdk.py"; fi
    if [ -n "${NODE_SDK:-}" ]; then client 'Node SDK, nginx' node "$work/client.mjs"; fi
    java_sdk 'Java SDK, nginx'
fi
if [ -n "$failed" ]; then tail -n 20 "$work"/*.log; fi
[ -z "$failed" ]
