"""Three servers on one PostgreSQL database are restarted one after the other, under the load of stock clients.

Usage: POSTGRES=FOLDER SERVER=PROGRAM [OLD_SERVER=PROGRAM] rolling_restart.py

POSTGRES has the programs of PostgreSQL. OLD_SERVER is the program of an earlier version, which all servers begin with:
they are upgraded, rolled back and upgraded again. The clients use the published package `yandexcloud`, spread their
calls over the servers, and have the retry policy that gRPC offers. They make images without a name and without an
idempotency key: a call that was carried out and then repeated would leave an image too many. No call may fail, and each
image that was made is there, and no other.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
from database import PATIENCE, Database, free_port, until
from seaweedfs import answers
from yandex.cloud.clouddesktop.v1.desktop_image_service_pb2 import ListDesktopImagesRequest
from yandex.cloud.clouddesktop.v1.desktop_image_service_pb2_grpc import DesktopImageServiceStub
from yandex.cloud.compute.v1.image_service_pb2 import CreateImageRequest, ListImagesRequest
from yandex.cloud.compute.v1.image_service_pb2_grpc import ImageServiceStub
from yandex.cloud.operation.operation_service_pb2 import GetOperationRequest
from yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub

REPLICAS = 3
ROUNDS = 2
CALLERS = 6
CALL_TIMEOUT = 30
# Longer than a client takes to learn that a server is about to stop.
DRAIN_DELAY = "500ms"
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


class Replica:
    """One server, which keeps its port when it is started again."""

    def __init__(self, folder, number, database):
        self.port = free_port()
        self.log = folder / f"replica-{number}.log"
        self.arguments = [
            "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", folder / "data",
            "--import-dir", folder / "imports", "--store", database.url(), "--drain-delay", DRAIN_DELAY,
        ]  # fmt: skip
        self.process = None

    def start(self, program):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([program, *self.arguments], stdout=log, stderr=log)
        until("a server is ready", self.is_ready)

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        return answers(f"http://127.0.0.1:{self.port}/readyz")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        assert code == 0, f"exit code {code}: {self.log.read_text()[-2000:]}"


class Load:
    """Clients that make images and read until they are told to stop."""

    def __init__(self, replicas, uri):
        target = "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)
        # The list of addresses would be sent as the name of the server, which HTTP/2 does not allow.
        options = {"grpc.service_config": json.dumps(SERVICE_CONFIG), "grpc.default_authority": "localhost"}
        self.channel = grpc.insecure_channel(target, options=list(options.items()))
        self.images = ImageServiceStub(self.channel)
        self.desktop_images = DesktopImageServiceStub(self.channel)
        self.operations = OperationServiceStub(self.channel)
        self.uri = uri
        self.made, self.failed = [], []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.call, args=(number,)) for number in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def call(self, number):
        try:
            while not self.stopped.is_set():
                request = CreateImageRequest(folder_id=f"folder-{number}", uri=self.uri)
                operation = self.images.Create(request, timeout=CALL_TIMEOUT)
                self.made.append(operation.id)
                self.operations.Get(GetOperationRequest(operation_id=operation.id), timeout=CALL_TIMEOUT)
                self.desktop_images.List(ListDesktopImagesRequest(folder_id="folder-0"), timeout=CALL_TIMEOUT)
        except grpc.RpcError as error:
            self.failed.append(f"{error.code()}: {error.details()}")

    def end(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    def ended(self, operation_id):
        operation = self.operations.Get(GetOperationRequest(operation_id=operation_id), timeout=CALL_TIMEOUT)
        assert not operation.HasField("error"), operation
        return operation.done

    def count(self):
        count = 0
        for number in range(CALLERS):
            token = ""
            while True:
                request = ListImagesRequest(folder_id=f"folder-{number}", page_size=1000, page_token=token)
                page = self.images.List(request, timeout=CALL_TIMEOUT)
                count += len(page.images)
                token = page.next_page_token
                if not token:
                    break
        return count


def main():
    with tempfile.TemporaryDirectory(prefix="rolling-restart-") as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        (folder / "imports").mkdir()
        (folder / "database").mkdir()
        disk = folder / "imports/disk.img"
        # An MBR with one partition.
        entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (1).to_bytes(4, "little") + (2047).to_bytes(4, "little")
        disk.write_bytes(bytes(446) + entry + bytes(48) + b"\x55\xaa" + bytes((1 << 20) - 512))
        database = Database(os.environ["POSTGRES"], folder / "database")
        replicas = []
        try:
            program = Path(os.environ["SERVER"]).resolve()
            first, programs = program, [program] * ROUNDS
            if os.environ.get("OLD_SERVER"):
                first = Path(os.environ["OLD_SERVER"]).resolve()
                programs = [program, first, program]
            replicas = [Replica(folder, number, database) for number in range(REPLICAS)]
            for replica in replicas:
                replica.start(first)
            schemas = [database.schema()]
            load = Load(replicas, f"file://{disk}")
            until("calls are answered", lambda: len(load.made) > CALLERS or load.failed)
            for next_program in programs:
                for replica in replicas:
                    replica.stop()
                    before = len(load.made)
                    replica.start(next_program)
                    until("calls go on", lambda: len(load.made) > before + CALLERS or load.failed)
                schemas.append(database.schema())
            load.end()
            assert not load.failed, load.failed
            for operation_id in load.made:
                until("an operation ends", lambda: load.ended(operation_id))
            assert load.count() == len(load.made), f"{load.count()} images of {len(load.made)} calls"
            restarts = len(programs) * REPLICAS
            print(f"{restarts} restarts, {len(load.made)} images made, no call failed; schemas {', '.join(schemas)}")
        finally:
            for replica in replicas:
                if replica.process is not None:
                    replica.process.kill()
            database.stop()


if __name__ == "__main__":
    sys.exit(main())
