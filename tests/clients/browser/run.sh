#!/usr/bin/env bash
# A page in headless Chromium: gRPC-Web and Connect by @connectrpc/connect-web, fetch with streams, and EventSource, from
# an origin that the server lets in.
#
# Environment: SERVER, the program under test; WORK, a folder; CHROMIUM, a program; BROWSER, a folder with the
# node_modules of package-lock.json.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../../.." && pwd)
server=${SERVER:-$repository/target/debug/desktop-images}
work=$WORK/browser
mkdir "$work"
export HOME=$work
ln -s "$BROWSER/node_modules" "$work/node_modules"
cp "$here"/*.mjs "$work/"
"$BROWSER/node_modules/.bin/buf" build "$repository/proto" --as-file-descriptor-set -o "$work/contract.binpb"
"$BROWSER/node_modules/.bin/esbuild" "$work/page.mjs" --bundle --log-level=warning --outfile="$work/page.js"
node "$work/browser.mjs" "$server" "$work" "$CHROMIUM"
