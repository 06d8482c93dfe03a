"""Runs in a pod: asks a recommender at a steady rate and tells every second what came back.

The Service's name is looked up once: what is measured is the Service and its pods, not DNS.
"""

import http.client
import json
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

THREADS = 16
SECONDS = 10.0

lock = threading.Lock()
answers: Counter[str] = Counter()
fallbacks: Counter[str] = Counter()
failures: list[str] = []
slowest = 0.0


def ask(host: str, body: dict[str, object], number: int) -> None:
    """Ask once, on a connection of its own, and note what came of it."""
    global slowest
    started = time.monotonic()
    try:
        connection = http.client.HTTPConnection(host, timeout=SECONDS)
        text = json.dumps({"jsonData": {**body, "request_id": f"people-{number}"}})
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", "/api/v1.0/predictions", text, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        if response.status != 200:
            raise OSError(f"HTTP {response.status}: {answer}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        with lock:
            failures.append(f"{time.time():.1f} {type(error).__name__}: {error}"[:300])
        return
    with lock:
        bundle = answer["jsonData"]["bundle_id"]
        answers[bundle] += 1
        fallbacks[bundle] += bool(answer["jsonData"]["fallback"])
        slowest = max(slowest, time.monotonic() - started)


def find(name: str, port: int) -> str:
    """The Service's address, which stays; a node may lead to its ready pods a moment later."""
    while True:
        try:
            address = socket.gethostbyname(name)
            socket.create_connection((address, port), timeout=SECONDS).close()
            return address
        except OSError:
            time.sleep(0.5)


def tell() -> None:
    """Write what was seen so far as one line."""
    with lock:
        seen = {
            "answers": dict(answers),
            "fallbacks": dict(fallbacks),
            "failures": failures[:50],
            "slowest_ms": slowest * 1000,
        }
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()


def main(url: str, rate: str, body: str) -> None:
    """Ask for ever."""
    place = urlsplit(url)
    port = place.port or 80
    host = f"{find(str(place.hostname), port)}:{port}"
    asked, told = 0, 0.0
    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            if time.monotonic() - told > 1:
                told = time.monotonic()
                tell()
            pool.submit(ask, host, json.loads(body), asked)
            asked += 1
            time.sleep(max(started + asked / float(rate) - time.monotonic(), 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
