"""Runs in a pod: sends requests to a recommender at a steady rate and reports once a second.

The Service's name is resolved once, so that DNS is not part of the measurement.
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
TIMEOUT_SECONDS = 10.0

lock = threading.Lock()
answers: Counter[str] = Counter()
fallbacks: Counter[str] = Counter()
failures: list[str] = []
slowest = 0.0


def request(host: str, body: dict[str, object], number: int) -> None:
    """Send one request on a new connection, and count its result."""
    global slowest
    started = time.monotonic()
    try:
        connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
        text = json.dumps({"jsonData": {**body, "request_id": f"load-{number}"}})
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


def resolve(name: str, port: int) -> str:
    """The Service's address, once it accepts connections."""
    while True:
        try:
            address = socket.gethostbyname(name)
            socket.create_connection((address, port), timeout=TIMEOUT_SECONDS).close()
            return address
        except OSError:
            time.sleep(0.5)


def report() -> None:
    """Write the totals so far as one line of JSON."""
    with lock:
        totals = {
            "answers": dict(answers),
            "fallbacks": dict(fallbacks),
            "failures": failures[:50],
            "slowest_ms": slowest * 1000,
        }
    sys.stdout.write(json.dumps(totals) + "\n")
    sys.stdout.flush()


def main(url: str, rate: str, body: str) -> None:
    """Send requests until the process is terminated."""
    parts = urlsplit(url)
    port = parts.port or 80
    host = f"{resolve(str(parts.hostname), port)}:{port}"
    sent, reported = 0, 0.0
    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            if time.monotonic() - reported > 1:
                reported = time.monotonic()
                report()
            pool.submit(request, host, json.loads(body), sent)
            sent += 1
            time.sleep(max(started + sent / float(rate) - time.monotonic(), 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
