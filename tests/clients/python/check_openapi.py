"""The OpenAPI document of a server, judged by an independent validator.

Usage: ENDPOINT=host:port check_openapi.py

Beside that the document is valid: its paths are those that the server serves, as far as a
request without a body can tell, and the limits of parameters are those that the server holds to.
"""

import os
import re

import requests
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

API = f"http://{os.environ['ENDPOINT']}"
TIMEOUT = 30


def beyond(schema):
    """A value that the limits of a schema leave out, if they have an upper end."""
    if "maxLength" in schema:
        return "a" * (schema["maxLength"] + 1)
    if "maximum" in schema:
        return schema["maximum"] + 1
    return None


def check_limits(url, parameters):
    """Each parameter beyond its limit is refused by name. Returns how many have one."""
    limited = 0
    for parameter in parameters:
        value = beyond(parameter["schema"])
        if parameter["in"] != "query" or value is None:
            continue
        reply = requests.get(url, {parameter["name"]: value}, timeout=TIMEOUT)
        assert reply.status_code == 400, f"{url} {parameter['name']}: {reply.status_code}"
        field = re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), parameter["name"])
        details = reply.json()["details"]
        fields = [violation["field"] for detail in details for violation in detail.get("fieldViolations", [])]
        assert field in fields, f"{url} {field}: {fields}"
        limited += 1
    return limited


def schemas_of(value):
    """All schemas and other objects within a document."""
    if isinstance(value, dict):
        yield value
        value = value.values()
    elif not isinstance(value, list):
        return
    for inner in value:
        yield from schemas_of(inner)


def check_what_generators_need(document):
    """A base address, a schema for each body, one type for each value, and 64 bits as strings in JSON."""
    assert [server["url"] for server in document["servers"]] == ["/"], document["servers"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            replies = operation["responses"].values()
            for body in [operation.get("requestBody", {}), *replies]:
                for media_type, content in body.get("content", {}).items():
                    assert content.get("schema"), f"{method} {path}: no schema of {media_type}"
    for path, method in [("/compute/v1/images:upload", "post")]:
        content = document["paths"][path][method]["requestBody"]["content"]
        schema = content["application/octet-stream"]["schema"]
        assert schema == {"type": "string", "format": "binary"}, schema
    wide = 0
    for schema in schemas_of(document["components"]["schemas"]):
        assert not isinstance(schema.get("type"), list), schema
        if schema.get("format") in ("int64", "uint64"):
            assert schema["type"] == "string", schema
            wide += 1
    assert wide > 5, wide


def main():
    reply = requests.get(f"{API}/openapi.json", timeout=TIMEOUT)
    reply.raise_for_status()
    document = reply.json()
    validate(document, cls=OpenAPIV31SpecValidator)
    check_what_generators_need(document)

    operations = limited = 0
    for path, item in document["paths"].items():
        url = API + re.sub(r"\{[^}]*\}", "x", path)
        allowed = requests.options(url, timeout=TIMEOUT).headers["allow"]
        for method, operation in item.items():
            assert method.upper() in allowed.split(", "), f"{method} {path}: {allowed}"
            assert operation.get("summary"), f"{method} {path} has no summary"
            operations += 1
            if method == "get":
                limited += check_limits(url, operation.get("parameters", []))
    assert operations > 10, operations
    assert limited > 10, limited

    page = requests.get(f"{API}/docs", timeout=TIMEOUT)
    page.raise_for_status()
    assert "swagger-ui" in page.text
    print(f"ok: the OpenAPI document is valid; {operations} operations are served as it says, and {limited} limits hold")


if __name__ == "__main__":
    main()
