// Requests that are refused by their head, with Node's http and http2, which read while they write. Arguments:
// HOST:PORT, method, path, the expected status, bytes of the body, how often, and the version of HTTP.
// Environment: FRESH, not empty for a connection of its own for each request.
import http from "node:http";
import http2 from "node:http2";
import { Readable } from "node:stream";

const [address, method, path, expected, size, times, version] = process.argv.slice(2);
const piece = Buffer.alloc(1 << 20);

function* zeros() {
  for (let left = Number(size); left > 0; left -= piece.length) {
    yield piece.subarray(0, Math.min(left, piece.length));
  }
}

function open() {
  if (version === "2") {
    const session = http2.connect(`http://${address}`);
    return session.request({ ":method": method, ":path": path }, { endStream: false });
  }
  const [host, port] = address.split(":");
  // Without a word of the agent, connections are kept.
  const agent = process.env.FRESH ? new http.Agent() : undefined;
  return http.request({ host, port, method, path, agent, headers: { "Content-Length": size } });
}

// Resolves once the whole answer is there. What goes wrong before is an error; Node leaves off writing then.
function ask() {
  return new Promise((resolve, reject) => {
    const request = open();
    request.on("error", reject);
    request.on("response", (answer) => {
      const [code, body] = version === "2" ? [answer[":status"], request] : [answer.statusCode, answer];
      const pieces = [];
      body.on("data", (data) => pieces.push(data));
      body.on("error", reject);
      body.on("end", () => resolve([code, JSON.parse(Buffer.concat(pieces).toString())]));
    });
    Readable.from(zeros()).pipe(request);
  });
}

for (let number = 0; number < Number(times); number++) {
  const [code, body] = await ask();
  if (code !== Number(expected) || !body.message) {
    console.error(code, body);
    process.exit(1);
  }
}
process.exit(0);
