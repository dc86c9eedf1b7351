// What a page of another origin does with the server: each function is called by browser.mjs.
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

// A header that browsers ask for leave to send. The page is told the token.
let token;
const check = (holds, seen) => {
  if (!holds) throw new Error(typeof seen === "string" ? seen : JSON.stringify(seen));
};
const registry = async () => {
  const bytes = await (await fetch("/contract.binpb")).arrayBuffer();
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, new Uint8Array(bytes)));
};

window.tests = {
  signIn(text) {
    token = { authorization: `Bearer ${text}` };
  },

  // The whole job over a protocol of connect-web, a stream of replies included.
  async calls(baseUrl, protocol, imageId, folderId) {
    const known = await registry();
    const options = { baseUrl, jsonOptions: { registry: known } };
    const transport = {
      "gRPC-Web": () => createGrpcWebTransport(options),
      "Connect, JSON": () => createConnectTransport(options),
      "Connect, protobuf": () => createConnectTransport({ ...options, useBinaryFormat: true, useHttpGet: true }),
    }[protocol]();
    const client = (name) => createClient(known.getService(name), transport);
    const images = client("yandex.cloud.clouddesktop.v1.api.DesktopImageService");
    let requestId;
    const copy = await images.copy(
      { folderId, name: "x", imageId },
      { headers: token, onHeader: (headers) => (requestId = headers.get("x-request-id")) },
    );
    check(requestId, "the page cannot read x-request-id");
    const states = [];
    const watch = client("desktopimages.v1.OperationWatchService");
    for await (const state of watch.watch({ operationId: copy.id }, { headers: token })) states.push(state.done);
    check(states.length > 1 && !states[0] && states.at(-1), states);
    const listed = await images.list({ folderId, filter: 'name="x"' }, { headers: token });
    check(listed.desktopImages.length === 1, listed.desktopImages.length);
    try {
      await images.get({ imageId: "nothing" }, { headers: token });
      check(false, "an unknown image was found");
    } catch (error) {
      check(ConnectError.from(error).code === Code.NotFound, String(error));
    }
    try {
      await images.get({ imageId });
      check(false, "a call without a token was answered");
    } catch (error) {
      check(ConnectError.from(error).code === Code.Unauthenticated, String(error));
    }
  },

  // Upload, ranges, and a stream of lines, by fetch.
  async fetches(baseUrl, folderId, disk) {
    const bytes = Uint8Array.from(atob(disk), (letter) => letter.charCodeAt(0));
    const url = `${baseUrl}/compute/v1/images:upload?folderId=${folderId}&name=page`;
    const upload = await fetch(url, { method: "POST", body: new Blob([bytes]), headers: token });
    const operation = await upload.json();
    check(upload.status === 200 && operation.done, operation);
    const copying = await fetch(`${baseUrl}/cloud-desktop/v1/images:copy`, {
      method: "POST",
      headers: { ...token, "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
      body: JSON.stringify({ folderId, name: "y", imageId: operation.response.id }),
    });
    const copy = await copying.json();
    check(copying.headers.get("x-operation-poll-interval"), "the page cannot read the poll interval");
    const watching = await fetch(`${baseUrl}/operations/${copy.id}:watch`, {
      headers: { ...token, accept: "application/x-ndjson" },
    });
    let text = "";
    let parts = 0;
    for await (const part of watching.body.pipeThrough(new TextDecoderStream())) {
      text += part;
      parts += 1;
    }
    const states = text.trim().split("\n").map((line) => JSON.parse(line).done);
    check(parts > 1 && !states[0] && states.at(-1), { states, parts });
    const imageId = copy.metadata.imageId;
    const range = await fetch(`${baseUrl}/cloud-desktop/v1/images/${imageId}:download`, {
      headers: { ...token, range: "bytes=510-511" },
    });
    const got = new Uint8Array(await range.arrayBuffer());
    check(range.status === 206 && got[0] === 0x55 && got[1] === 0xaa, [range.status, ...got]);
    check(range.headers.get("repr-digest")?.startsWith("sha-256="), "the page cannot read the digest");
    const gone = await fetch(`${baseUrl}/cloud-desktop/v1/images/nothing`, { headers: token });
    check(gone.status === 404 && (await gone.json()).code === 5, gone.status);
  },

  // Server-sent events, which carry no header of the page's: a signed URL has the rights.
  async events(baseUrl, folderId, imageId) {
    const copying = await fetch(`${baseUrl}/cloud-desktop/v1/images:copy`, {
      method: "POST",
      headers: { ...token, "content-type": "application/json" },
      body: JSON.stringify({ folderId, name: "z", imageId }),
    });
    const copy = await copying.json();
    const signing = await fetch(`${baseUrl}/desktop-images/v1/signedUrls`, {
      method: "POST",
      headers: { ...token, "content-type": "application/json" },
      body: JSON.stringify({ operationId: copy.id, expiresIn: "60s" }),
    });
    const signed = await signing.json();
    check(signing.status === 200, signed);
    const states = await new Promise((resolve, reject) => {
      const seen = [];
      const source = new EventSource(baseUrl + signed.path);
      source.onmessage = (event) => seen.push(JSON.parse(event.data).done);
      source.addEventListener("end", () => {
        source.close();
        resolve(seen);
      });
      source.onerror = () => reject(new Error(`the events broke off behind ${JSON.stringify(seen)}`));
    });
    check(states.length > 1 && !states[0] && states.at(-1), states);
  },

  // What a page that is not let in gets.
  async refused(baseUrl) {
    for (const init of [{}, { headers: token }, { method: "POST", body: "{}" }]) {
      const outcome = await fetch(`${baseUrl}/endpoints`, init).then((it) => `HTTP ${it.status}`, () => "nothing");
      check(outcome === "nothing", outcome);
    }
  },
};
