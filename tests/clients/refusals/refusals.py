"""Requests that are refused by their head, with Python's http.client, which sends a body to its end before it
reads. Arguments: HOST:PORT, method, path, the expected status, bytes of the body, and how often."""

import http.client
import json
import sys

PIECE = bytes(1 << 20)


def zeros(size):
    while size > 0:
        yield PIECE[:size]
        size -= len(PIECE)


def main():
    address, method, path, expected, size, times = sys.argv[1:]
    for number in range(int(times)):
        connection = http.client.HTTPConnection(address, timeout=120)
        # By length and in chunks, in turns.
        chunked = number % 2 == 1
        headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": size}
        connection.request(method, path, zeros(int(size)), headers, encode_chunked=chunked)
        reply = connection.getresponse()
        body = json.loads(reply.read())
        if reply.status != int(expected) or not body["message"]:
            sys.exit(f"{reply.status} {body}")
        connection.close()


main()
