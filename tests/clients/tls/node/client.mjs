// Does the main job with the public Node SDK. Environment: TLS_ENDPOINT, host:port; CA_FILE, the authority of the server;
// TOKEN; COMPUTE_IMAGE_ID.
//
// The SDK has no discovery: each client, and `waitForOperation`, is told the address.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { Session, waitForOperation } from "@yandex-cloud/nodejs-sdk";
import { desktopImage, desktopImageService } from "@yandex-cloud/nodejs-sdk/clouddesktop-v1";

const { TLS_ENDPOINT, CA_FILE, TOKEN, COMPUTE_IMAGE_ID } = process.env;
const folderId = `node-${randomUUID()}`;
const session = new Session({ iamToken: TOKEN, ssl: { rootCerts: readFileSync(CA_FILE) }, pollInterval: 50 });
const images = session.client(desktopImageService.DesktopImageServiceClient, TLS_ENDPOINT);
const request = (type, fields) => desktopImageService[type].fromPartial(fields);
const wait = (operation) => waitForOperation(operation, session, 60_000, TLS_ENDPOINT);

const copying = await images.copy(
  request("CopyDesktopImageRequest", { folderId, name: "x", imageId: COMPUTE_IMAGE_ID, labels: { one: "1" } }),
);
const copied = await wait(copying);
assert(copied.done && copied.response, JSON.stringify(copied));
const image = desktopImage.DesktopImage.decode(copied.response.value);
const page = await images.list(request("ListDesktopImagesRequest", { folderId, filter: 'name="x"', pageSize: 1 }));
assert.deepEqual(page.desktopImages.map((it) => it.id), [image.id]);
const got = await images.get(request("GetDesktopImageRequest", { imageId: image.id }));
assert.equal(got.labels.one, "1");
await assert.rejects(
  images.get(request("GetDesktopImageRequest", { imageId: "nothing" })),
  /NOT_FOUND: Image "nothing" not found/,
);
const deleted = await wait(await images.delete(request("DeleteDesktopImageRequest", { imageId: image.id })));
assert.equal(deleted.response.typeUrl, "type.googleapis.com/google.protobuf.Empty");
console.log("ok: Node SDK");
process.exit(0);
