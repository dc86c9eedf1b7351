"""Figures of REST, each beside its goal; scripts/bench-rest installs what this needs and runs it.

All ways to the same reply are loaded alike, over HTTP/2 without TLS: 16 connections with 4 requests
under way on each. That is enough to keep two cores busy, and so few that it is not the length of a
queue that is measured. Every way is warmed up, then loaded for some seconds in each of five rounds, in
which they alternate. A rate is the median of the rounds, a ratio that of the rounds' ratios. The servers
in memory are so quick that a start decides more than what is compared: they have more rounds, shorter
ones, and are started anew for each.

Before it is loaded, each way's reply is compared with what protobuf's own JSON mapping makes of the
gRPC reply. Under load every reply must have status 200 and exactly the length of that one: a gRPC call
that fails has status 200, but no message.
"""

import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

TOOLS = os.environ["BENCH_REST_TOOLS"]
SERVER = "target/dist/desktop-images"
IN_MEMORY = "target/dist/desktop-images-in-memory"
HERE = os.path.dirname(__file__)
PACKAGE = "yandex.cloud.clouddesktop.v1.api"
FOLDER = "b1gabcdefghijklmnopq"
IMAGES = 100

CONNECTIONS, STREAMS = 16, 4
ROUNDS, ROUND_SECONDS, WARM_UP_SECONDS = 5, 2, 1
# Of servers that are started anew for each, of which every round is shorter.
STARTS, START_SECONDS = 31, 1
# At least as many requests as connections, several times over.
FEW = CONNECTIONS * STREAMS * 4
TICK = os.sysconf("SC_CLK_TCK")


class Figures:
    def __init__(self):
        self.rows, self.failed = [], 0

    def fact(self, name, value):
        self.row(name, value, "", "")

    def at_least(self, name, value, least):
        met = value >= least
        self.failed += not met
        self.row(name, f"{value:.2f}", f"{least} or more", "pass" if met else "FAIL")

    def row(self, *row):
        """Printed as it is known: a run takes minutes."""
        print("; ".join(row), file=sys.stderr)
        self.rows.append(row)

    def __str__(self):
        lines = ["| figure | value | goal | verdict |", "|---|---|---|---|"]
        return "\n".join(lines + [f"| {' | '.join(row)} |" for row in self.rows])


class Process:
    """A server that is measured, ready to be connected to at `port`."""

    def __init__(self, folder, name, command, port):
        self.name, self.command, self.port = name, command, port
        self.log = os.path.join(folder, f"{name}.log")
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            quiet = {**os.environ, "RUST_LOG": "warn"}
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=quiet)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    with open(self.log) as log:
                        sys.exit(f"{self.name} does not start: {log.read()}")
                time.sleep(0.02)

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            # After the command's name in parentheses: utime and stime are the 14th and 15th field.
            fields = stat.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self):
        self.process.kill()
        self.process.wait()

    def start_anew(self):
        self.stop()
        self.start()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Way:
    """One way to a reply, and what was seen of it under load."""

    def __init__(self, name, processes, url, frame=None):
        self.name, self.processes, self.url = name, processes, url
        # A file with a gRPC request.
        self.frame = frame
        self.length = None
        self.rates, self.cpu = [], []

    def rest_reply(self):
        with urllib.request.urlopen(self.url) as reply:
            body = reply.read()
        self.length = len(body)
        return json.loads(body)

    def load(self, requests):
        command = ["h2load", "-t1", f"-c{CONNECTIONS}", f"-m{STREAMS}", f"-n{requests}", self.url]
        if self.frame:
            command += ["-d", self.frame, "-H", "content-type: application/grpc", "-H", "te: trailers"]
        before = sum(process.cpu_seconds() for process in self.processes)
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        cpu = sum(process.cpu_seconds() for process in self.processes) - before
        seen = [int(re.search(pattern, told).group(1)) for pattern in (
            r"(\d+) succeeded", r"status codes: (\d+) 2xx", r"\((\d+)\) data")]
        if seen != [requests, requests, requests * self.length]:
            sys.exit(f"{self.name}: not every reply was right:\n{told}")
        return float(re.search(r"([\d.]+) req/s", told).group(1)), cpu / requests * 1e6

    def measure(self, requests):
        rate, cpu = self.load(requests)
        self.rates.append(rate)
        self.cpu.append(cpu)


def warm_up(way):
    """How many requests a second it answers, about."""
    return way.load(requests(way.load(FEW)[0], WARM_UP_SECONDS))[0]


def requests(rate, seconds):
    return max(FEW, int(rate * seconds))


def measure(ways):
    rates = [warm_up(way) for way in ways]
    for _ in range(ROUNDS):
        for way, rate in zip(ways, rates):
            way.measure(requests(rate, ROUND_SECONDS))


def measure_starts(ways):
    """With servers started anew for each round: where memory happens to lie makes one ten per cent
    slower or faster for as long as it runs."""
    rates = [warm_up(way) for way in ways]
    for number in range(STARTS):
        # In turns, so that none is always first.
        for way, rate in list(zip(ways, rates))[::-1 if number % 2 else 1]:
            for process in way.processes:
                process.start_anew()
            way.load(requests(rate, START_SECONDS / 4))
            way.measure(requests(rate, START_SECONDS))


def ratio(one, other):
    return statistics.median(a / b for a, b in zip(one.rates, other.rates))


def rate(way):
    return f"{statistics.median(way.rates):.0f}/s"


def string(number, text):
    """A field of a protobuf message; both numbers are below 128."""
    return bytes([number << 3 | 2, len(text)]) + text.encode()


class Calls:
    """The two calls that are measured, and their right replies."""

    def __init__(self, folder, server, image_id):
        with open(os.path.join(TOOLS, "descriptors.bin"), "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.Add(file)
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        self.paths = {
            "Get": f"cloud-desktop/v1/images/{image_id}",
            "List": f"cloud-desktop/v1/images?folderId={FOLDER}&pageSize={IMAGES}",
        }
        self.frames, self.lengths, self.replies = {}, {}, {}
        for method, request, reply in (
            ("Get", string(1, image_id), "DesktopImage"),
            # page_size has the number 21.
            ("List", string(1, FOLDER) + b"\xa8\x01" + bytes([IMAGES]), "ListDesktopImagesResponse"),
        ):
            self.frames[method] = os.path.join(folder, f"{method}.frame")
            with open(self.frames[method], "wb") as file:
                file.write(struct.pack(">BI", 0, len(request)) + request)
            # Fails where the status is not OK.
            message = channel.unary_unary(f"/{PACKAGE}.DesktopImageService/{method}")(request)
            self.lengths[method] = len(message) + 5
            message_type = pool.FindMessageTypeByName(f"{PACKAGE}.{reply}")
            self.replies[method] = json_format.MessageToDict(
                message_factory.GetMessageClass(message_type).FromString(message),
                always_print_fields_with_no_presence=True, descriptor_pool=pool)
        if len(self.replies["List"]["desktopImages"]) != IMAGES:
            sys.exit("the list is not what it should be")
        channel.close()

    def over_grpc(self, method, server):
        url = f"http://127.0.0.1:{server.port}/{PACKAGE}.DesktopImageService/{method}"
        way = Way(f"gRPC {method}", [server], url, self.frames[method])
        way.length = self.lengths[method]
        return way

    def over_rest(self, name, method, processes):
        """The last of the processes is the one that is asked."""
        url = f"http://127.0.0.1:{processes[-1].port}/{self.paths[method]}"
        way = Way(f"{name} {method}", processes, url)
        if way.rest_reply() != self.replies[method]:
            sys.exit(f"{way.name}: another reply than over gRPC")
        return way


def fill(server):
    """Makes the images that are asked for, and gives the id of one of them."""
    url = f"http://127.0.0.1:{server.port}"

    def post(path, body):
        with urllib.request.urlopen(url + path, data=body) as reply:
            operation = json.load(reply)
        if not operation["done"] or "error" in operation:
            sys.exit(f"{path}: {operation}")
        return operation["metadata"]["imageId"]

    # A raw disk with a partition table.
    disk = bytearray(2 << 20)
    disk[446:462] = struct.pack("<4xB3xII", 0x83, 64, 4000)
    disk[510:512] = b"\x55\xaa"
    source = post("/compute/v1/images:upload?folderId=catalogue&name=disk", bytes(disk))
    for number in range(IMAGES):
        image_id = post("/cloud-desktop/v1/images:copy", json.dumps({
            "folderId": FOLDER,
            "name": f"office-desktop-{number:03}",
            "imageId": source,
            "labels": {"team": "office", "release": "2026-09"},
            "description": "Windows 11 with the office applications, patched monthly",
        }).encode())
    return image_id


def bench_server(folder, figures, processes):
    """REST of the server itself beside its gRPC, and beside gateways in front of that."""

    def start(name, port, *command):
        processes.append(Process(folder, name, command, port))
        return processes[-1]

    port = free_port()
    server = start("server", port, SERVER, "serve", "--listen", f"127.0.0.1:{port}",
                   "--data-dir", os.path.join(folder, "data"))
    calls = Calls(folder, server, fill(server))
    port = free_port()
    with open(os.path.join(HERE, "envoy.yaml")) as file:
        config = file.read()
    for name, value in (("LISTEN", port), ("SERVER", server.port),
                        ("DESCRIPTORS", os.path.join(TOOLS, "descriptors.bin"))):
        config = config.replace(name, str(value))
    envoy = start("envoy", port, os.path.join(TOOLS, "bin", "envoy"), "--use-dynamic-base-id",
                  "--log-level", "error", "--config-yaml", config)
    port = free_port()
    gateway = start("grpc-gateway", port, os.path.join(TOOLS, "bin", "gateway"),
                    f"127.0.0.1:{port}", f"127.0.0.1:{server.port}")

    for method, of_grpc, of_gateways in (("Get", 0.9, 3), ("List", 0.8, 4)):
        direct = calls.over_grpc(method, server)
        ours = calls.over_rest("REST", method, [server])
        gateways = [calls.over_rest("Envoy", method, [server, envoy]),
                    calls.over_rest("grpc-gateway", method, [server, gateway])]
        measure([direct, ours, *gateways])
        figures.at_least(f"{ours.name} ({rate(ours)}) / {direct.name} ({rate(direct)})",
                         ratio(ours, direct), of_grpc)
        for way in gateways:
            figures.at_least(f"{ours.name} ({rate(ours)}) / {way.name} ({rate(way)})",
                             ratio(ours, way), of_gateways)
        own = statistics.median(direct.cpu)
        figures.fact(f"CPU of a {direct.name}", f"{own:.1f} µs")
        for way in (ours, *gateways):
            added = statistics.median(way.cpu) - own
            figures.fact(f"CPU that transcoding adds, {way.name}", f"{added:.1f} µs")


def bench_crate(folder, figures, processes):
    """This server's REST beside a small server with the crate rest_over_grpc, both around one service
    that has all in memory, since the crate takes no part of this server but its messages. The small one
    is hyper's, as the crate's examples have it. What the transcoder alone does is seen on that one, too."""
    servers = []
    for by in ("listener-and-transcoder", "rest-over-grpc", "transcoder"):
        port = free_port()
        servers.append(Process(folder, by, [IN_MEMORY, by, f"127.0.0.1:{port}"], port))
    processes += servers
    for method, path in (("Get", f"cloud-desktop/v1/images/e3v{0:017}"),
                         ("List", f"cloud-desktop/v1/images?folderId={FOLDER}&pageSize={IMAGES}")):
        ways = [Way(f"{by} {method}", [server], f"http://127.0.0.1:{server.port}/{path}")
                for by, server in zip(("listener and transcoder,", "rest_over_grpc on hyper,",
                                       "the transcoder on hyper,"), servers)]
        # pbjson, by which the crate writes JSON, puts an offset where the mapping has a Z.
        replies = {json.dumps(way.rest_reply()).replace("+00:00", "Z") for way in ways}
        if len(replies) > 1:
            sys.exit(f"{method}: not the same reply from all")
        measure_starts(ways)
        ours, theirs, alone = ways
        figures.at_least(f"{ours.name} ({rate(ours)}) / {theirs.name} ({rate(theirs)})",
                         ratio(ours, theirs), 1)
        figures.fact(f"{alone.name} ({rate(alone)}) / {theirs.name} ({rate(theirs)})",
                     f"{ratio(alone, theirs):.2f}")
        for way in ways:
            figures.fact(f"CPU of a call by {way.name}", f"{statistics.median(way.cpu):.1f} µs")


def main():
    with open("/proc/cpuinfo") as file:
        model = re.search("model name\t: (.*)", file.read())
    facts = [f"{os.cpu_count()} cores, {model.group(1) if model else 'unknown processor'}, "
             f"Linux {os.uname().release}",
             f"load average at the start {os.getloadavg()[0]:.2f}: figures need an idle machine"]
    figures = Figures()
    for part in (bench_server, bench_crate):
        if part.__name__.removeprefix("bench_") not in sys.argv[1:]:
            continue
        processes = []
        with tempfile.TemporaryDirectory(prefix="bench-rest-", dir="target") as folder:
            try:
                part(folder, figures, processes)
            finally:
                for process in processes:
                    process.stop()
    print("\n".join(facts), figures, sep="\n\n")
    sys.exit(1 if figures.failed else 0)


main()
