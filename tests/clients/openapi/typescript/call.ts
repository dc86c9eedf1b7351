// A client that openapi-typescript made of the server's document, with openapi-fetch, against the server.
//
// Usage: ENDPOINT=host:port node call.js DISK

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";

import createClient from "openapi-fetch";

import type { components, paths } from "./api.js";

type Image = components["schemas"]["yandex.cloud.compute.v1.Image"];

const client = createClient<paths>({ baseUrl: `http://${process.env.ENDPOINT}` });
const folderId = `ts-${randomUUID()}`;
const disk = await readFile(process.argv[2]!);

/** What a call that must succeed gives. */
function granted<T>(reply: { data?: T; error?: unknown }): NonNullable<T> {
  assert.equal(reply.error, undefined, JSON.stringify(reply.error));
  assert(reply.data);
  return reply.data;
}

const uploaded = granted(
  await client.POST("/compute/v1/images:upload", {
    params: { query: { folderId, name: "golden", minDiskSize: 2 ** 30 } },
    // The document says that the body is bytes; how they are held is the program's affair.
    body: "",
    bodySerializer: () => disk,
    headers: { "Content-Type": "application/octet-stream" },
  }),
);
assert(uploaded.done);
assert.equal(uploaded.error, undefined);
const imageId = String(uploaded.metadata?.["imageId"]);
const listed = granted(
  await client.GET("/compute/v1/images", { params: { query: { folderId, pageSize: 10 } } }),
);
const [image] = listed.images ?? [];
assert.equal(image?.id, imageId);
// Numbers of 64 bits are strings, for the compiler too.
const minDiskSize: string | undefined = (image as Image).minDiskSize;
assert.equal(minDiskSize, String(2 ** 30));
const storageSize = BigInt(image?.storageSize ?? "0");
assert(storageSize > 0n && storageSize <= BigInt(disk.length), String(storageSize));

const request = { folderId, name: "desktop", imageId };
const copied = granted(await client.POST("/cloud-desktop/v1/images:copy", { body: request }));
assert(copied.done);
const image_id = String(copied.metadata?.["imageId"]);
const desktop = granted(
  await client.GET("/cloud-desktop/v1/images/{image_id}", { params: { path: { image_id } } }),
);
assert.equal(desktop.status, "ACTIVE");
const downloaded = granted(
  await client.GET("/cloud-desktop/v1/images/{image_id}:download", {
    params: { path: { image_id } },
    parseAs: "arrayBuffer",
  }),
);
assert(Buffer.from(downloaded).equals(disk), "the bytes that were uploaded");

const operation_id = copied.id!;
const operation = granted(
  await client.GET("/operations/{operation_id}", { params: { path: { operation_id } } }),
);
assert.equal(operation.id, operation_id);
const watched = granted(
  await client.GET("/operations/{operation_id}:watch", { params: { path: { operation_id } } }),
);
assert(Array.isArray(watched) && watched.length > 0);

const refusedCopy = await client.POST("/cloud-desktop/v1/images:copy", { body: request });
assert.equal(refusedCopy.response.status, 409);
assert.equal(refusedCopy.error?.code, 6);
const refusedCreate = await client.POST("/compute/v1/images", {
  body: { folderId, minDiskSize: "1" },
});
assert.equal(refusedCreate.error?.code, 3);
assert.match(refusedCreate.error?.message ?? "", /min_disk_size/);

const limit = String(2n ** 53n + 1n);
const name = "compute.images.size";
granted(await client.PUT("/desktop-images/v1/quotas", { body: { folderId, name, limit } }));
const quotas = granted(
  await client.GET("/desktop-images/v1/quotas", { params: { query: { folderId } } }),
);
assert.equal(quotas.quotas?.find((quota) => quota.name === name)?.limit, limit);
console.log("ok: openapi-typescript and openapi-fetch make a client that works");
