"""A proxy in front of an S3 server that sometimes fails as stores do.

One request in a few is answered with 500 or 503, late, by a connection that is cut in the middle of
the body, with a body that ends early and says that it is whole, or with a flipped bit. Everything
else passes through untouched, the signed Host header too.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

from tests.s3_server import S3Server

KINDS = ("500", "503", "slow", "cut")
#: Wrong bodies of images only: their sizes and checksums were listed before.
IMAGE_KINDS = (*KINDS, "truncated", "flipped")
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


class FaultyProxy:
    """Forwards to a server on this machine, with a share of requests going wrong.

    Attributes:
        port: where it listens.
        share: of the requests that fail; may be changed at any time.
        injected: how often each kind of fault was injected.
    """

    def __init__(self, server: S3Server, *, share: float = 0.0, seed: int = 0) -> None:
        self.server, self.share = server, share
        self.injected: Counter[str] = Counter()
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self._decks = {kinds: self._dealt(kinds) for kinds in (KINDS, IMAGE_KINDS)}
        self._kill_in_put = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer._serve(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Ignore a client that closed its connection."""

        self._httpd = Quiet(("127.0.0.1", 0), Handler)
        self.port = int(self._httpd.server_port)
        self._thread = threading.Thread(target=self._httpd.serve_forever, daemon=True)
        self._thread.start()

    @property
    def options(self) -> dict[str, str]:
        """The storage options of a client."""
        return {**self.server.options, "endpoint_url": f"http://127.0.0.1:{self.port}"}

    def kill_server_in_next_write(self) -> None:
        """At the next PUT of a shard's file, kill the server half-way, and start it again."""
        self._kill_in_put.set()

    def close(self) -> None:
        """Stop listening."""
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join(timeout=20)

    def _dealt(self, kinds: tuple[str, ...]) -> Iterator[str]:
        """Yield every kind in a random order, again and again."""
        while True:
            yield from self._rng.sample(kinds, len(kinds))

    def _fault(self, method: str, path: str) -> str | None:
        with self._lock:
            if self._rng.random() >= self.share:
                return None
            is_image = method == "GET" and path.endswith(".png")
            kind = next(self._decks[IMAGE_KINDS if is_image else KINDS])
            self.injected[kind] += 1
            return kind

    def _serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length) if length else b""
        fault = self._fault(request.command, request.path)
        if fault in {"500", "503"}:
            self._answer(request, int(fault), {}, b"")
            return
        if fault == "slow":
            time.sleep(self._rng.uniform(0.5, 2.0))
        is_put = request.command == "PUT" and "/part-" in request.path
        if is_put and self._kill_in_put.is_set():
            self._kill_in_put.clear()
            self._half_a_write(request, body)
            return
        try:
            status, headers, data = self._forward(request, body)
        except (OSError, http.client.HTTPException):
            request.close_connection = True  # the server is gone: so is the connection
            return
        if fault == "cut":
            self._answer(request, status, headers, data, sent=len(data) // 2)
            request.close_connection = True
            return
        if fault == "truncated" and "Content-Length" in headers:
            data = data[: len(data) // 2]
        if fault == "flipped" and data:
            at = len(data) // 2
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        self._answer(request, status, headers, data)

    def _half_a_write(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        """Send half of a PUT to the server, kill it, start it again, and drop the client."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as upstream,
        ):
            lines = [f"{request.command} {request.path} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in request.headers.items()]
            upstream.sendall("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2])
            time.sleep(0.3)
            self.server.kill()
        with self._lock:
            self.injected["server killed"] += 1
        request.close_connection = True
        time.sleep(1.0)
        self.server.start()

    def _forward(
        self, request: http.server.BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k.lower() != "connection"}
            connection.putrequest(
                request.command, request.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            forwarded = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
            if request.command == "HEAD" and answer.headers.get("Content-Length"):
                forwarded["Content-Length"] = answer.headers["Content-Length"]
            elif request.command == "GET":
                forwarded["Content-Length"] = str(len(data))
            return answer.status, forwarded, data
        finally:
            connection.close()

    @staticmethod
    def _answer(
        request: http.server.BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        data: bytes,
        sent: int | None = None,
    ) -> None:
        request.send_response_only(status)
        for name, value in headers.items():
            if name != "Content-Length" or request.command == "HEAD":
                request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data if sent is None else data[:sent])
        request.wfile.flush()
