"""SeaweedFS on ports and sockets of its own, so that several may run on one machine."""

import urllib.error
import urllib.request

from database import free_port

PORTS = ["master.port", "volume.port", "filer.port", "s3.port"]
PORTS += [f"{port}.grpc" for port in PORTS]


class SeaweedFS:
    """The addresses of a server, and the options that it takes for them; its sockets are in a folder."""

    def __init__(self, folder):
        ports = {name: free_port() for name in PORTS}
        self.address = f"127.0.0.1:{ports['s3.port']}"
        self.master = f"127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}"
        self.options = [f"-{name}={port}" for name, port in ports.items()]
        self.options += [f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"]
        self.options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]

    def answers(self):
        return answers(f"http://{self.address}/healthz")


def answers(url):
    """Whether a server answers, and with success."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True
