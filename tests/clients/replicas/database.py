"""A real PostgreSQL in a temporary folder, and what its users share."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

# Longer than any step takes.
PATIENCE = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class Database:
    """A server in a folder of its own. It does not run as root, so that the folder must be reachable by `nobody`."""

    def __init__(self, programs, folder, user="images", name="postgres", password=None):
        self.programs = Path(programs)
        self.folder, self.user, self.name = folder, user, name
        self.port = free_port()
        self.runs_as = None
        if os.geteuid() == 0:
            self.runs_as = "nobody"
            shutil.chown(folder, "nobody")
        login = ["--auth=trust"]
        if password:
            file = folder / "password"
            file.write_text(password)
            if self.runs_as:
                shutil.chown(file, self.runs_as)
            login = ["--auth=scram-sha-256", f"--pwfile={file}"]
        self.run("initdb", "-D", "data", "-U", user, *login, "--encoding=UTF8", "--locale=C.UTF-8")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self.run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")
        if name != "postgres":
            at = ["-h", "127.0.0.1", "-p", str(self.port), "-U", user]
            self.run("createdb", *at, name, PGPASSWORD=password or "")

    def run(self, program, *arguments, **environment):
        subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            user=self.runs_as,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def url(self):
        return f"postgres://{self.user}@127.0.0.1:{self.port}/{self.name}?sslmode=disable"

    def schema(self):
        """The version of the schema, which the program that migrated it has noted."""
        command = [self.programs / "psql", "-At", "-c", "SELECT version FROM schema_version", self.url()]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    def stop(self):
        self.run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
