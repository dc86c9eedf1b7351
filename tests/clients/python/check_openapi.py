"""The OpenAPI document of a server, judged by an independent validator.

Usage: ENDPOINT=host:port check_openapi.py

Beside that the document is valid: its paths are those that the server serves, as far as a
request without a body can tell.
"""

import os
import re

import requests
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

API = f"http://{os.environ['ENDPOINT']}"
TIMEOUT = 30


def main():
    reply = requests.get(f"{API}/openapi.json", timeout=TIMEOUT)
    reply.raise_for_status()
    document = reply.json()
    validate(document, cls=OpenAPIV31SpecValidator)

    operations = 0
    for path, item in document["paths"].items():
        url = API + re.sub(r"\{[^}]*\}", "x", path)
        allowed = requests.options(url, timeout=TIMEOUT).headers["allow"]
        for method, operation in item.items():
            assert method.upper() in allowed.split(", "), f"{method} {path}: {allowed}"
            assert operation.get("summary"), f"{method} {path} has no summary"
            operations += 1
    assert operations > 10, operations

    page = requests.get(f"{API}/docs", timeout=TIMEOUT)
    page.raise_for_status()
    assert "swagger-ui" in page.text
    print(f"ok: the OpenAPI document is valid; {operations} operations are served as it says")


if __name__ == "__main__":
    main()
