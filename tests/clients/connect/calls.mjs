// Calls a server with @connectrpc/connect-node, over every protocol it has: Connect in JSON and protobuf, with GET
// where a method has no side effects, gRPC and gRPC-Web; over HTTP/1.1 and HTTP/2.
//
//   ENDPOINT=host:port COMPUTE_IMAGE_ID=id node calls.mjs DESCRIPTORS
//
// DESCRIPTORS is an encoded FileDescriptorSet of the contract: no code is generated.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { createFileRegistry, createRegistry, fromBinary } from "@bufbuild/protobuf";
import { EmptySchema, FileDescriptorSetSchema, anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

const { ENDPOINT, COMPUTE_IMAGE_ID } = process.env;
const contract = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(process.argv[2])));
const registry = createRegistry(contract, EmptySchema);
// In JSON the metadata of an operation is a message of its own, which only the registry knows.
const common = { baseUrl: `http://${ENDPOINT}`, jsonOptions: { registry } };
const service = (name) => {
  const found = registry.getService(name);
  assert(found, `no service ${name}`);
  return found;
};
const message = (name) => registry.getMessage(name);

const connect = (options) => createConnectTransport({ ...common, ...options });
const transports = {
  "Connect, JSON, HTTP/1.1": connect({ httpVersion: "1.1", useBinaryFormat: false }),
  "Connect, protobuf, HTTP/1.1": connect({ httpVersion: "1.1", useBinaryFormat: true }),
  "Connect, JSON, HTTP/2": connect({ httpVersion: "2", useBinaryFormat: false }),
  "Connect, protobuf, HTTP/2": connect({ httpVersion: "2", useBinaryFormat: true }),
  "Connect, JSON, GET": connect({ httpVersion: "2", useBinaryFormat: false, useHttpGet: true }),
  "Connect, protobuf, GET": connect({ httpVersion: "1.1", useBinaryFormat: true, useHttpGet: true }),
  "gRPC-Web, HTTP/1.1": createGrpcWebTransport({ ...common, httpVersion: "1.1" }),
  "gRPC, HTTP/2": createGrpcTransport(common),
};

// What a call that must fail with this code threw.
async function refused(code, call) {
  try {
    await call();
  } catch (error) {
    const refusal = ConnectError.from(error);
    assert.equal(Code[refusal.code], Code[code], refusal.message);
    return refusal;
  }
  assert.fail(`a call was granted that must be refused: ${Code[code]}`);
}

async function check(transport, folderId) {
  const images = createClient(service("yandex.cloud.clouddesktop.v1.api.DesktopImageService"), transport);
  const compute = createClient(service("yandex.cloud.compute.v1.ImageService"), transport);
  const operations = createClient(service("yandex.cloud.operation.OperationService"), transport);
  const watch = createClient(service("desktopimages.v1.OperationWatchService"), transport);
  const endpoints = createClient(service("yandex.cloud.endpoint.ApiEndpointService"), transport);
  const timeoutMs = 30_000;

  const { endpoints: listed } = await endpoints.list({}, { timeoutMs });
  assert.deepEqual(listed.map((it) => it.id), ["clouddesktops", "compute", "endpoint", "iam", "operation"]);
  assert(listed.every((it) => it.address === ENDPOINT), JSON.stringify(listed));

  let requestId;
  const onHeader = (headers) => (requestId = headers.get("x-request-id"));
  const headers = { "x-request-id": "connect-test" };
  const image = await compute.get({ imageId: COMPUTE_IMAGE_ID }, { timeoutMs, headers, onHeader });
  assert.equal(image.id, COMPUTE_IMAGE_ID);
  assert.equal(requestId, "connect-test");

  const copy = await images.copy(
    { folderId, name: "copy-я", imageId: COMPUTE_IMAGE_ID, labels: { one: "1" } },
    { timeoutMs },
  );
  assert.equal(copy.done, true);
  assert.equal(copy.result.case, "response");
  const copied = anyUnpack(copy.result.value, registry);
  assert.equal(copied.$typeName, "yandex.cloud.clouddesktop.v1.api.DesktopImage");
  assert.deepEqual({ ...copied.labels }, { one: "1" });
  const metadata = anyUnpack(copy.metadata, message("yandex.cloud.clouddesktop.v1.api.CopyDesktopImageMetadata"));
  assert.equal(metadata.imageId, copied.id);
  const { desktopImages } = await images.list({ folderId, filter: 'name="copy-я"', pageSize: 1n }, { timeoutMs });
  assert.deepEqual(desktopImages.map((it) => it.id), [copied.id]);

  // A stream of replies, to its end.
  const seen = [];
  for await (const state of watch.watch({ operationId: copy.id }, { timeoutMs })) seen.push(state);
  assert(seen.length >= 1 && seen.at(-1).done, JSON.stringify(seen.length));
  assert.equal((await operations.get({ operationId: copy.id }, { timeoutMs })).done, true);

  // Refusals, with their details.
  const missing = await refused(Code.NotFound, () => images.get({ imageId: "nothing" }, { timeoutMs }));
  assert.equal(missing.rawMessage, 'Image "nothing" not found');
  const invalid = await refused(Code.InvalidArgument, () => images.list({ folderId: "" }, { timeoutMs }));
  const [details] = invalid.findDetails(message("google.rpc.BadRequest"));
  assert.deepEqual(details.fieldViolations.map((it) => it.field), ["folder_id"]);
  const gone = await refused(Code.NotFound, async () => {
    for await (const _ of watch.watch({ operationId: "nothing" }, { timeoutMs }));
  });
  assert.equal(gone.rawMessage, 'Operation "nothing" not found');
  await refused(Code.DeadlineExceeded, async () => {
    const quiet = service("grpc.health.v1.Health");
    for await (const _ of createClient(quiet, transport).watch({}, { timeoutMs: 300 }));
  });
  const deleted = await images.delete({ imageId: copied.id }, { timeoutMs });
  assert.equal(deleted.result.value.typeUrl, "type.googleapis.com/google.protobuf.Empty");
}

let number = 0;
for (const [name, transport] of Object.entries(transports)) {
  await check(transport, `connect-${process.pid}-${(number += 1)}`);
  console.log(`ok: ${name}`);
}

// A compressed request, and a reply that is compressed for whoever likes it.
const compressing = connect({
  httpVersion: "1.1", useBinaryFormat: false, sendCompression: compressionGzip, compressMinBytes: 0,
});
const compute = createClient(service("yandex.cloud.compute.v1.ImageService"), compressing);
assert.equal((await compute.get({ imageId: COMPUTE_IMAGE_ID })).id, COMPUTE_IMAGE_ID);
const reply = await new Promise((resolve, reject) =>
  import("node:http").then(({ request }) => {
    const headers = { "content-type": "application/proto", "accept-encoding": "gzip" };
    const path = "/yandex.cloud.endpoint.ApiEndpointService/List";
    request(`${common.baseUrl}${path}`, { method: "POST", headers }, async (response) => {
      const pieces = [];
      for await (const piece of response) pieces.push(piece);
      resolve({ coding: response.headers["content-encoding"], body: Buffer.concat(pieces) });
    })
      .on("error", reject)
      .end();
  }),
);
const list = reply.coding === "gzip" ? gunzipSync(reply.body) : reply.body;
assert.equal(fromBinary(message("yandex.cloud.endpoint.ListApiEndpointsResponse"), list).endpoints.length, 5);
console.log("ok: gzip");
process.exit(0);
