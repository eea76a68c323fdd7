#!/usr/bin/python3
"""Load models into the Ollama that has just started, so that no request has to wait for the disk.

usage: preload.py [--wait] URL MODEL...

The server's unit runs it after every start. Without `--wait` it goes on in the background, because
the unit is up while its models load, and a model that is not there yet is only noted.
"""

import http.client
import json
import os
import sys
import time
import urllib.parse

READY_S = 60.0
# A large model takes minutes to read from a disk.
LOAD_S = 1800.0


def ask(url, method, path, body=None, timeout=5.0):
    """Send a request; returns the status and the text of the answer."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request(
            method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def wait_until_ready(url):
    """Wait until the server answers; returns whether it does."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if ask(url, "GET", "/api/version")[0] == 200:
                return True
        except OSError:
            pass
        time.sleep(0.2)
    return False


def load(url, model):
    """Load a model for good; returns what went wrong, or an empty text.

    A request without a question only loads.
    """
    body = {"model": model, "keep_alive": -1}
    try:
        status, answer = ask(url, "POST", "/api/generate", body, LOAD_S)
        if status == 400:  # a model for embeddings
            status, answer = ask(url, "POST", "/api/embed", body, LOAD_S)
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    return "" if status == 200 else answer.strip()


def main(arguments):
    """Load the models, one after the other."""
    wait = arguments[:1] == ["--wait"]
    url, *models = arguments[1:] if wait else arguments
    if not wait and os.fork():
        return 0
    if not wait_until_ready(url):
        print(f"Ollama at {url} does not answer", file=sys.stderr)
        return 1
    failed = 0
    for model in models:
        problem = load(url, model)
        if problem:
            failed = 1
            print(f"{model} could not be loaded: {problem}", file=sys.stderr)
        else:
            print(f"{model} is loaded", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
