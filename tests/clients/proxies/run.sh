#!/usr/bin/env bash
# A server as README.md starts it behind a proxy, with nginx, HAProxy and Caddy in front, each with the Host kept and
# rewritten: an upload of 2 GiB, ranges, gRPC, events as they come, and a stream that is quiet for longer than the proxy
# waits. The limit of each proxy is low, but longer than the pause between two heartbeats (15 s).
#
# Environment: SERVER, the program under test; WORK, a folder; NGINX, HAPROXY, CADDY and GRPCURL: each a program, or empty
# to leave that out.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../../.." && pwd)
server=${SERVER:-$repository/target/debug/desktop-images}
work=$WORK/proxies
mkdir "$work"
export HOME=$work
limit=18
patience=40
failed=
passed=0
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
}
trap cleanup EXIT
pass() { passed=$((passed + 1)); }
fail() { # NAME WORDS
    echo "FAILED: $1: $(tail -n 3 <<<"$2")"
    failed=1
}
ports() {
    python3 -c 'import socket
sockets = [socket.socket() for _ in range(3)]
for it in sockets: it.bind(("127.0.0.1", 0))
print(*(it.getsockname()[1] for it in sockets))'
}

# Whatever name is asked for, the proxy is on this machine.
curl() { command curl --connect-to ::127.0.0.1: "$@"; }

"$server" serve --listen 127.0.0.1:0 --ephemeral --trusted-proxy 127.0.0.1 --insecure-allow-anonymous \
    --allow-host images.example >"$work/address" 2>"$work/server.log" &
pids+=($!)
for _ in $(seq 100); do
    grep -q http "$work/address" && break
    sleep 0.1
done
ENDPOINT=$(sed -n '1s|.*http://||p' "$work/address")

# Disks of as many MiB, with data near their ends.
for size in 64 2048; do
    truncate -s "${size}M" "$work/$size.raw"
    echo 'start=2048, type=83' | sfdisk -q "$work/$size.raw"
    dd if=/dev/urandom of="$work/$size.raw" bs=1M count=1 seek=$((size - 9)) conv=notrunc status=none
done

# One proxy, at one of its ports, with a disk of so many MiB.
behind() { # NAME ADDRESS MIB
    # Other names are refused, also where the server sees its own in Host; and discovery leads back to the proxy.
    if grep -q "HTTP/1.1 403" <<<"$(curl -sS -i "http://other.example:${2#*:}/endpoints")"; then pass; else
        fail "$1, another name" 'it is let in'
    fi
    if grep -q "\"address\":\"$2\"" <<<"$(curl -sS "http://$2/endpoints/iam")"; then pass; else
        fail "$1, discovery" "$(curl -sS "http://$2/endpoints/iam")"
    fi
    local name=$1 api=http://$2 disk=$work/$3.raw first=$((($3 - 9) << 20)) id reply
    reply=$(curl -sS --fail-with-body -X POST -T "$disk" "$api/compute/v1/images:upload?folderId=proxies&name=big") ||
        { fail "$name, upload of $3 MiB" "$reply"; return; }
    id=$(sed -nE 's/.*CreateImageMetadata", ?"imageId": ?"([^"]+)".*/\1/p' <<<"$reply")
    reply=$(curl -sS --fail-with-body -X POST -H 'Content-Type: application/json' "$api/cloud-desktop/v1/images:copy" \
        -d "{\"folderId\": \"proxies\", \"name\": \"copy\", \"imageId\": \"$id\"}") || fail "$name, copy" "$reply"
    local copy
    copy=$(sed -nE 's/.*CopyDesktopImageMetadata", ?"imageId": ?"([^"]+)".*/\1/p' <<<"$reply")
    local url=$api/cloud-desktop/v1/images/$copy:download
    if cmp <(curl -sS --fail -r "$first-$((first + 999))" "$url") <(tail -c +$((first + 1)) "$disk" | head -c 1000); then
        pass
    else
        fail "$name, range" 'it differs'
    fi
    # Events come one by one: the first is there although the stream goes on.
    reply=$(curl -sSN --max-time 3 -H 'Accept: text/event-stream' \
        "$api/desktop-images/v1/auditEvents?folderId=proxies&follow=true" 2>/dev/null)
    if grep -q '^data: {"sequence"' <<<"$reply"; then pass; else fail "$name, events" "$reply"; fi
    for image in "cloud-desktop/v1/images/$copy" "compute/v1/images/$id"; do
        curl -sS --fail -o "$work/deleted" -X DELETE "$api/$image" || fail "$name, delete" "$(cat "$work/deleted")"
    done
    pass
}

# A stream that says nothing but heartbeats, and a connection without a request: both outlast the proxy's limit.
quiet() { # NAME ADDRESS
    local name=$1 api=http://$2 reply code=0
    reply=$(curl -sSN --max-time "$patience" -H 'Accept: text/event-stream' \
        "$api/desktop-images/v1/auditEvents?folderId=quiet&follow=true" 2>/dev/null) || code=$?
    # 28 is our own limit; anything else is the proxy's.
    [ "$code" = 28 ] && [ "$(grep -c '^: heartbeat' <<<"$reply")" -ge 2 ] || { echo "$name: curl $code: $reply"; return 1; }
    curl -sS --fail -o /dev/null "$api/endpoints" || return 1
}

over_grpc() { # NAME PORT
    [ -n "${GRPCURL:-}" ] || return
    local reply
    reply=$("$GRPCURL" -plaintext -authority "images.example:$2" -max-time 30 -d '{"folder_id": "proxies"}' \
        "127.0.0.1:$2" yandex.cloud.compute.v1.ImageService/List 2>&1) || { fail "$1, gRPC" "$reply"; return; }
    reply=$("$GRPCURL" -plaintext -authority "images.example:$2" -max-time 30 -d '{"image_id": "nothing"}' \
        "127.0.0.1:$2" yandex.cloud.compute.v1.ImageService/Get 2>&1) && { fail "$1, gRPC" 'an unknown image was found'; return; }
    if grep -q 'Code: NotFound' <<<"$reply"; then pass; else fail "$1, gRPC" "$reply"; fi
}

quiets=()
begin() { # NAME CONFIGURATION COMMAND...
    local name=$1 configuration=$2 kept rewritten grpc
    shift 2
    mkdir "$work/$name"
    read -r kept rewritten grpc <<<"$(ports)"
    # The snippet of README.md as it stands there, but for the address and the limit.
    awk '/^```nginx/ { on = 1; next } /^```/ { on = 0 } on' "$repository/README.md" |
        sed -E "s|proxy_pass .*|proxy_pass http://$ENDPOINT;|; s|proxy_read_timeout .*|proxy_read_timeout ${limit}s;|" \
            >"$work/snippet"
    sed -e "/@SNIPPET@/{r $work/snippet" -e 'd}' "$here/$configuration" |
        sed -e "s|@SERVER@|$ENDPOINT|g; s|@KEPT@|$kept|; s|@REWRITTEN@|$rewritten|; s|@GRPC@|$grpc|" \
            -e "s|@WORK@|$work/$name|; s|@LIMIT@|$limit|" >"$work/$name/$configuration"
    env -u NGINX -u HAPROXY -C "$work/$name" "$@" "$work/$name/$configuration" >"$work/$name/log" 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do
        curl -s -o /dev/null "http://images.example:$kept/endpoints" && break
        if ! kill -0 "${pids[-1]}" 2>/dev/null; then fail "$name" "$(cat "$work/$name/log")" && return; fi
        sleep 0.1
    done
    for port in "$kept" "$rewritten"; do
        quiet "$name" "images.example:$port" >"$work/$name/quiet-$port" 2>&1 &
        quiets+=("$!:$work/$name/quiet-$port")
    done
    behind "$name, Host kept" "images.example:$kept" 2048
    behind "$name, Host rewritten" "images.example:$rewritten" 64
    if [ "$name" = nginx ]; then over_grpc "$name" "$grpc"; else over_grpc "$name" "$kept"; fi
}
if [ -n "${NGINX:-}" ]; then begin nginx nginx.conf "$NGINX" -p "$work/nginx" -e "$work/nginx/error.log" -c; fi
if [ -n "${HAPROXY:-}" ]; then begin haproxy haproxy.cfg "$HAPROXY" -db -f; fi
if [ -n "${CADDY:-}" ]; then begin caddy Caddyfile "$CADDY" run --adapter caddyfile --config; fi
for entry in "${quiets[@]}"; do
    if wait "${entry%%:*}"; then pass; else fail 'a quiet stream' "$(cat "${entry#*:}")"; fi
done
echo "$passed passed"
[ -z "$failed" ]
