"""Uploads and downloads with Python's requests.

Usage: with_requests.py upload URL FILE REPLY | with_requests.py download URL FILE

A download goes on behind the bytes that FILE has, if the image is still the same.
"""

import os
import sys

import requests

TIMEOUT = 60


def upload(url, path, reply):
    with open(path, "rb") as file:
        answer = requests.post(url, data=file, timeout=TIMEOUT)
    answer.raise_for_status()
    with open(reply, "w") as file:
        file.write(answer.text)


def download(url, path):
    have = os.path.getsize(path) if os.path.exists(path) else 0
    etag = requests.head(url, timeout=TIMEOUT).headers["etag"]
    headers = {"range": f"bytes={have}-", "if-range": etag, "accept-encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        # 200 where the image is another one by now.
        mode = "ab" if answer.status_code == 206 else "wb"
        with open(path, mode) as file:
            for piece in answer.iter_content(1 << 20):
                file.write(piece)


{"upload": upload, "download": download}[sys.argv[1]](*sys.argv[2:])
