#!/usr/bin/env bash
# Refusals reach every client, whatever of the body is still on its way: at 1, 16 and 96 MiB, and at 2 GiB.
# Environment: ENDPOINT, host:port; WORK, a folder; PYTHON, GO, NODE and NGINX, each a program, or empty to leave
# that out.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mib=$((1 << 20))
upload=/compute/v1/images:upload
failed=
passed=0
nginx=
cleanup() {
    if [ -n "$nginx" ]; then kill "$nginx" 2>/dev/null && wait "$nginx" || true; fi
}
trap cleanup EXIT

# The last line of what a command says is shown where it fails.
check() { # NAME COMMAND...
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        echo "FAILED: $name: $(tail -n 1 <<<"$said")"
        failed=1
    fi
}

# curl reads while it writes, and leaves off where it can.
with_curl() { # ADDRESS METHOD PATH STATUS BYTES TIMES OPTION...
    local address=$1 method=$2 path=$3 status=$4 bytes=$5 times=$6 got number
    shift 6
    for number in $(seq "$times"); do
        got=$(curl -sS -X "$method" -T - -o "$WORK/refusal.json" -w '%{http_code}' "$@" "http://$address$path" \
            < <(head -c "$bytes" /dev/zero 2>/dev/null)) ||
            { echo "curl ended with $?, $number: $got"; return 1; }
        [ "$got" = "$status" ] || { echo "$got"; return 1; }
        grep -q '"message"' "$WORK/refusal.json" || { echo "no words: $(cat "$WORK/refusal.json")"; return 1; }
    done
}

# Every client of this machine, against one address.
clients() { # NAME ADDRESS METHOD PATH STATUS BYTES TIMES VERSION...
    local name=$1 version
    local what=("${@:2:6}")
    shift 7
    name="$name, ${what[1]} ${what[2]}, $((what[4] / mib)) MiB"
    if [ -n "${PYTHON:-}" ]; then check "$name, Python" "$PYTHON" "$here/refusals.py" "${what[@]}"; fi
    for version in "$@"; do
        local option=--http1.1
        if [ "$version" = 2 ]; then option=--http2-prior-knowledge; fi
        check "$name, curl, HTTP/$version" with_curl "${what[@]}" $option
        check "$name, curl, HTTP/$version, unasked" with_curl "${what[@]}" $option -H Expect:
        if [ -n "${GO:-}" ]; then check "$name, Go, HTTP/$version" "$WORK/refusals" "${what[@]}" "$version"; fi
        if [ -n "${NODE:-}" ]; then
            check "$name, Node, HTTP/$version" "$NODE" "$here/refusals.mjs" "${what[@]}" "$version"
        fi
    done
}

if [ -n "${GO:-}" ]; then env -C "$here/go" "$GO" build -o "$WORK/refusals" . || exit 1; fi

clients direct "$ENDPOINT" POST "$upload" 400 "$mib" 20 1.1 2
clients direct "$ENDPOINT" POST "$upload" 400 $((16 * mib)) 10 1.1 2
clients direct "$ENDPOINT" POST /nothing 404 $((16 * mib)) 10 1.1 2
clients direct "$ENDPOINT" PUT /compute/v1/images 405 $((16 * mib)) 10 1.1 2
clients direct "$ENDPOINT" POST "$upload" 400 $((96 * mib)) 2 1.1 2
clients direct "$ENDPOINT" POST "$upload" 400 $((2048 * mib)) 1 1.1 2

if [ -n "${NGINX:-}" ]; then
    ports=$(python3 -c 'import socket
sockets = [socket.socket() for _ in range(2)]
for it in sockets: it.bind(("127.0.0.1", 0))
print(*(it.getsockname()[1] for it in sockets))')
    read -r streaming buffering <<<"$ports"
    mkdir -p "$WORK/nginx"
    sed -e "s|@SERVER@|$ENDPOINT|; s|@STREAMING@|$streaming|; s|@BUFFERING@|$buffering|; s|@WORK@|$WORK/nginx|" \
        "$here/nginx.conf" >"$WORK/nginx/nginx.conf"
    # nginx takes a variable of this name for sockets to inherit.
    env -u NGINX "$NGINX" -p "$WORK/nginx" -c "$WORK/nginx/nginx.conf" -e "$WORK/nginx/error.log" &
    nginx=$!
    for _ in $(seq 100); do
        curl -s -o "$WORK/health.json" "http://127.0.0.1:$buffering/openapi.json" && break
        sleep 0.1
    done
    # nginx announces that it keeps a connection, and closes it where the answer came before the body's end:
    # what Node has sent on it by then is lost, whatever the server behind did (nginx 1.22.1).
    export FRESH=1
    for port in "$streaming" "$buffering"; do
        name="nginx that streams"
        if [ "$port" = "$buffering" ]; then name="nginx that buffers"; fi
        clients "$name" "127.0.0.1:$port" POST "$upload" 400 $((16 * mib)) 5 1.1
        clients "$name" "127.0.0.1:$port" POST /nothing 404 $((16 * mib)) 5 1.1
        clients "$name" "127.0.0.1:$port" POST "$upload" 400 $((96 * mib)) 1 1.1
        if [ -n "${PYTHON:-}" ]; then
            check "$name, 2 GiB, Python" "$PYTHON" "$here/refusals.py" "127.0.0.1:$port" POST "$upload" 400 \
                $((2048 * mib)) 1
        fi
    done
fi
echo "$passed passed"
[ -z "$failed" ]
