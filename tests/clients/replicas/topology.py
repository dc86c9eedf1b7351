"""The services of deploy/compose.yaml as processes of one machine: PostgreSQL, SeaweedFS, three replicas, and haproxy.

Each is started by the command that the file has for it. Only names of hosts, ports, and places of files are others, and
callers need no token.
"""

import os
import re
import signal
import subprocess
from pathlib import Path

import yaml
from database import PATIENCE, Database, free_port, until
from seaweedfs import SeaweedFS, answers

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


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
        server = SeaweedFS(place)
        self.storage = server.address
        command = [weed]
        for word in services["seaweedfs"]["command"]:
            word = word.replace("-dir=/data", f"-dir={place}")
            command.append(self.with_secrets(re.sub(r"-ip(\.bind)?=.*", r"-ip\1=127.0.0.1", word)))
        self.process("seaweedfs", command + server.options)
        self.until("SeaweedFS answers", server.answers)
        # The script of the service `bucket`, until it succeeds, as `restart: on-failure` has it.
        (script,) = services["bucket"]["command"]
        script = script.replace("weed shell", f"{weed} shell")
        script = script.replace("seaweedfs:9333", server.master)

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
            self.until("a replica is ready", lambda: answers(f"http://{address}/readyz"))
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
        self.until("the proxy answers", lambda: answers(f"http://{self.address}/readyz"))

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

    def until(self, what, condition):
        """Waits for a condition, as long as all processes live."""

        def is_so():
            for name, process in self.processes:
                assert process.poll() is None, f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}"
            return condition()

        until(what, is_so)

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
