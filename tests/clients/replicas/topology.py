"""The services of deploy/compose.yaml as processes of one machine: PostgreSQL, SeaweedFS, three replicas, and haproxy.

Each is started by the command that the file has for it. Only names of hosts, ports, and places of files are others, and
callers need no token.
"""

import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from database import PATIENCE, Database, free_port, until

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
# What SeaweedFS takes a port for, where the file leaves it to the container.
WEED_PORTS = ["master.port", "volume.port", "filer.port", "s3.port"]
WEED_PORTS += [f"{port}.grpc" for port in WEED_PORTS]


class Topology:
    """All services, started. `address` is that of the proxy, `replicas` are those behind it."""

    def __init__(self, folder, *, program, postgres, weed, haproxy, imports, port=None):
        self.folder, self.processes = Path(folder), []
        services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
        secrets = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["secrets"]
        self.secrets = {f"/run/secrets/{name}": DEPLOY / secret["file"] for name, secret in secrets.items()}
        try:
            self.database = None
            self.start_database(services["postgres"]["environment"], postgres)
            self.start_storage(services, weed)
            self.start_replicas(services["images"], program, imports)
            self.start_proxy(haproxy, port or free_port())
        except BaseException:
            self.stop()
            raise

    def start_database(self, environment, programs):
        password = self.secrets[environment["POSTGRES_PASSWORD_FILE"]].read_text().strip()
        place = self.folder / "postgres"
        place.mkdir()
        user, name = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
        self.database = Database(programs, place, user=user, name=name, password=password)

    def start_storage(self, services, weed):
        place = self.folder / "seaweedfs"
        place.mkdir()
        ports = {name: free_port() for name in WEED_PORTS}
        self.storage = f"127.0.0.1:{ports['s3.port']}"
        command = [weed]
        for word in services["seaweedfs"]["command"]:
            word = word.replace("-dir=/data", f"-dir={place}")
            command.append(self.with_secrets(re.sub(r"-ip(\.bind)?=.*", r"-ip\1=127.0.0.1", word)))
        command += [f"-{name}={port}" for name, port in ports.items()]
        command += [f"-filer.localSocket={place}/filer.sock", f"-s3.localSocket={place}/s3.sock"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        self.process("seaweedfs", command)
        until("SeaweedFS answers", lambda: self.answers(f"http://{self.storage}/healthz"))
        # The script of the service `bucket`, until it succeeds, as `restart: on-failure` has it.
        (script,) = services["bucket"]["command"]
        script = script.replace("weed shell", f"{weed} shell")
        script = script.replace("seaweedfs:9333", f"127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}")

        def made():
            return subprocess.run(["sh", "-c", script], cwd=self.folder, stdout=subprocess.DEVNULL).returncode == 0

        until("the bucket is made", made)

    def start_replicas(self, service, program, imports):
        changes = {
            "/data/images": str(self.folder / "data"),
            "@postgres/": f"@127.0.0.1:{self.database.port}/",
            "seaweedfs:8333": self.storage,
            "10.89.89.0/24": "127.0.0.1",
            "--drain-delay=5s": "--drain-delay=500ms",
        }
        words = [word for word in service["command"] if not word.startswith(("--require-auth", "--bootstrap-token"))]
        environment = {name: self.with_secrets(value) for name, value in service["environment"].items()}
        self.replicas = []
        for number in range(service["deploy"]["replicas"]):
            address = f"127.0.0.1:{free_port()}"
            command = [program]
            for word in words:
                for said, meant in {**changes, "0.0.0.0:8080": address}.items():
                    word = word.replace(said, meant)
                command.append(self.with_secrets(word))
            command += ["--import-dir", imports]
            self.process(f"replica-{number}", command, **environment)
            until("a replica is ready", lambda: self.answers(f"http://{address}/readyz"))
            self.replicas.append(address)

    def start_proxy(self, haproxy, port):
        self.address = f"127.0.0.1:{port}"
        lines = []
        for line in (DEPLOY / "compose/haproxy.cfg").read_text().splitlines():
            # Docker alone has the resolver.
            if line.startswith(("resolvers", "    nameserver", "    hold valid")):
                continue
            if line.strip().startswith("server-template"):
                lines += [f"    server replica{number} {at}" for number, at in enumerate(self.replicas)]
                continue
            line = line.replace("init-addr none resolvers docker", "")
            lines.append(line.replace("bind :8080", f"bind {self.address}"))
        config = self.folder / "haproxy.cfg"
        config.write_text("\n".join(lines) + "\n")
        self.process("haproxy", [haproxy, "-f", config])
        until("the proxy answers", lambda: self.answers(f"http://{self.address}/readyz"))

    def with_secrets(self, word):
        for said, meant in self.secrets.items():
            word = word.replace(said, str(meant))
        return word

    def process(self, name, command, **environment):
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.processes.append((name, process))

    def answers(self, url):
        for name, process in self.processes:
            assert process.poll() is None, f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def stop(self):
        """Stops all, those that were started last first; those that did not end well."""
        wrong = []
        for name, process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if name.startswith("replica") and code:
                wrong.append(f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()[-2000:]}")
        if self.database:
            self.database.stop()
        return wrong
