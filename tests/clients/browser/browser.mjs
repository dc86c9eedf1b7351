// Calls a server from pages in headless Chromium.
//
//   node browser.mjs SERVER FOLDER CHROMIUM
//
// SERVER is the program under test, FOLDER has page.js and contract.binpb. The page is of one origin, which the server
// lets in, and then of another one, which it does not.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [, , program, folder, executablePath] = process.argv;
const files = {
  "/": ["text/html", "<!doctype html><title>page</title><script src=page.js></script>"],
  "/page.js": ["text/javascript", readFileSync(`${folder}/page.js`)],
  "/contract.binpb": ["application/octet-stream", readFileSync(`${folder}/contract.binpb`)],
};
const pages = createServer((request, response) => {
  const [type, body] = files[request.url] ?? ["text/plain", ""];
  response.writeHead(files[request.url] ? 200 : 404, { "content-type": type }).end(body);
});
pages.listen(0, "127.0.0.1");
await once(pages, "listening");
const { port } = pages.address();
const tokenFile = `${folder}/admin.token`;
const options = [
  "--listen", "127.0.0.1:0", "--ephemeral", "--simulate-latency", "500ms",
  "--require-auth", "--bootstrap-token-file", tokenFile,
];
const server = spawn(program, ["serve", ...options, "--cors-allow-origin", `http://localhost:${port}`], {
  stdio: ["ignore", "pipe", "ignore"],
});
const [line] = await once(createInterface(server.stdout), "line");
const baseUrl = line.replace("Listening on ", "");
const token = readFileSync(tokenFile, "utf8").trim();

// A disk of 2 MiB with a partition.
const disk = Buffer.alloc(2 << 20);
disk.set([0, 0, 2, 0, 0x83, 0xff, 0xff, 0xff, 1, 0, 0, 0], 446);
disk.writeUInt32LE((2 << 20) / 512 - 1, 458);
disk.set([0x55, 0xaa], 510);
const upload = await fetch(`${baseUrl}/compute/v1/images:upload?folderId=browser&name=golden`, {
  method: "POST",
  headers: { authorization: `Bearer ${token}` },
  body: disk,
});
const operation = await upload.json();
assert.equal(upload.status, 200, JSON.stringify(operation));
const imageId = operation.response.id;

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let failed = false;
async function run(origin, name, ...given) {
  const page = await browser.newPage();
  await page.goto(origin);
  await page.evaluate((text) => window.tests.signIn(text), token);
  try {
    await page.evaluate(([test, rest]) => window.tests[test](...rest), [name, given]);
    console.log(`ok: ${name} ${given[1] ?? ""}`);
  } catch (error) {
    console.log(`FAILED: ${name} ${given[1] ?? ""}: ${error.message}`);
    failed = true;
  }
  await page.close();
}
const own = `http://localhost:${port}/`;
await run(own, "calls", baseUrl, "gRPC-Web", imageId, "grpc-web");
await run(own, "calls", baseUrl, "Connect, JSON", imageId, "connect-json");
await run(own, "calls", baseUrl, "Connect, protobuf", imageId, "connect-proto");
await run(own, "fetches", baseUrl, "fetches", disk.toString("base64"));
await run(own, "events", baseUrl, "events", imageId);
await run(`http://127.0.0.1:${port}/`, "refused", baseUrl);
await browser.close();
server.kill();
pages.close();
process.exit(failed ? 1 : 0);
