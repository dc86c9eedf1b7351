#!/usr/bin/env bash
# Stock clients over TLS, whose discovery leads them back to the same address: behind nginx.
#
# Environment: SERVER, the program under test; WORK, a folder; NGINX; and PYTHON, GO, GRPCURL, CONNECT, NODE_SDK (a folder
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

# An authority, and a certificate for localhost.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=test authority' \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=localhost' \
    -keyout "$work/leaf.key" -out "$work/leaf.csr" 2>/dev/null
openssl x509 -req -in "$work/leaf.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
    -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out "$work/leaf.pem" 2>/dev/null

port=$(python3 -c 'import socket
it = socket.socket()
it.bind(("127.0.0.1", 0))
print(it.getsockname()[1])')
export TLS_ENDPOINT=localhost:$port CA_FILE=$work/ca.pem TOKEN=any
"$server" serve --listen 127.0.0.1:0 --ephemeral --advertise "$TLS_ENDPOINT" >"$work/address" 2>"$work/server.log" &
pids+=($!)
for _ in $(seq 100); do
    grep -q http "$work/address" && break
    sleep 0.1
done
address=$(sed 's|.*http://||' "$work/address")
sed -e "s|@SERVER@|$address|; s|@PORT@|$port|; s|@WORK@|$work|" "$here/nginx.conf" >"$work/nginx.conf"
# nginx takes a variable of this name for sockets to inherit.
env -u NGINX "$NGINX" -p "$work" -c "$work/nginx.conf" -e "$work/error.log" &
pids+=($!)
for _ in $(seq 100); do
    curl -s --cacert "$CA_FILE" -o "$work/endpoints.json" "https://$TLS_ENDPOINT/endpoints" && break
    sleep 0.1
done
grep -q "\"clouddesktops\",\"address\":\"$TLS_ENDPOINT\"" "$work/endpoints.json" ||
    { echo "FAILED: endpoints: $(cat "$work/endpoints.json" "$work/error.log")"; exit 1; }

truncate -s 4M "$work/disk.raw"
echo 'start=2048, type=83' | sfdisk -q "$work/disk.raw"
curl -sS --fail-with-body --cacert "$CA_FILE" -X POST -T "$work/disk.raw" \
    "https://$TLS_ENDPOINT/compute/v1/images:upload?folderId=tls&name=golden" >"$work/upload.json" ||
    { echo "FAILED: upload: $(cat "$work/upload.json")"; exit 1; }
COMPUTE_IMAGE_ID=$(sed -E 's/.*CreateImageMetadata", ?"imageId": ?"([^"]+)".*/\1/' "$work/upload.json")
export COMPUTE_IMAGE_ID

image=yandex.cloud.compute.v1.ImageService/Get
asked="{\"imageId\": \"$COMPUTE_IMAGE_ID\"}"
if [ -n "${GRPCURL:-}" ]; then
    client grpcurl "$GRPCURL" -cacert "$CA_FILE" -max-time 30 -d "$asked" "$TLS_ENDPOINT" "$image"
fi
if [ -n "${CONNECT:-}" ]; then
    for protocol in connect grpc grpcweb; do
        client "buf curl, $protocol" "$CONNECT/node_modules/.bin/buf" curl --cacert "$CA_FILE" --protocol "$protocol" \
            -d "$asked" "https://$TLS_ENDPOINT/$image"
    done
fi
if [ -n "${PYTHON:-}" ]; then client 'Python SDK' "$PYTHON" "$here/../python/test_sdk.py"; fi
if [ -n "${GO:-}" ]; then
    for version in v1 v2; do
        client "Go SDK $version" env -C "$here/../go-sdk/$version" SSL_CERT_FILE="$CA_FILE" \
            "$GO" test -count=1 -vet=off -run TLS ./...
    done
fi
if [ -n "${NODE_SDK:-}" ]; then
    cp "$here/node/client.mjs" "$work/"
    ln -s "$NODE_SDK/node_modules" "$work/node_modules"
    client 'Node SDK' node "$work/client.mjs"
fi
if [ -n "${JAVA_SDK:-}" ]; then
    keytool -importcert -noprompt -alias authority -file "$CA_FILE" -storepass changeit -keystore "$work/trust.p12" \
        2>/dev/null
    client 'Java SDK' java -Djavax.net.ssl.trustStore="$work/trust.p12" -Djavax.net.ssl.trustStorePassword=changeit \
        -cp "$JAVA_SDK/*" "$here/java/Client.java"
fi
if [ -n "$failed" ]; then tail -n 20 "$work/server.log" "$work/error.log"; fi
[ -z "$failed" ]
