"""Fetching: one failure costs nobody else, what passes is tried again."""

from __future__ import annotations

import http.server
import threading
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from salip_ray.errors import ImageError
from salip_ray.sources.fetch import fetch_all


class FlakyFileSystem(MemoryFileSystem):
    """Memory, but each path fails a given number of times."""

    protocol = "flaky"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    failures: ClassVar[dict] = {}
    calls: ClassVar[list] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        type(self).calls.append(path)
        name = path.rpartition("/")[2]
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise OSError("503 slow down")
        if name == "secret":
            raise PermissionError("forbidden")
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def flaky():
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    fs = fsspec.filesystem("flaky")
    FlakyFileSystem.failures, FlakyFileSystem.calls = {}, []
    for name in "abc":
        fs.pipe_file(f"/{name}", name.encode())
    return FlakyFileSystem


def test_local_files_in_order_and_a_missing_one_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"")
    results = fetch_all([str(tmp_path / name) for name in ("b", "gone", "a")])
    assert (results[0], results[2]) == (b"", b"1")
    assert isinstance(results[1], ImageError)
    assert "gone does not exist" in str(results[1])


def test_folder_instead_of_a_file_is_an_error(tmp_path):
    (results,) = fetch_all([str(tmp_path)])
    assert "is a folder" in str(results)


def test_transient_failures_are_tried_again(flaky):
    flaky.failures = {"b": 2}
    results = fetch_all([f"flaky://{name}" for name in "abc"], first_pause=0.001)
    assert results == [b"a", b"b", b"c"]
    assert flaky.calls.count("/a") == 1


def test_and_given_up_in_the_end(flaky):
    flaky.failures = {"b": 99}
    results = fetch_all(["flaky://a", "flaky://b"], attempts=3, first_pause=0.001)
    assert results[0] == b"a"
    assert "could not be fetched: OSError: 503 slow down" in str(results[1])
    assert flaky.calls.count("/b") == 3


def test_refusals_and_missing_files_are_final(flaky):
    results = fetch_all(["flaky://secret", "flaky://gone"], first_pause=60)
    assert "refused" in str(results[0])
    assert "does not exist" in str(results[1])


def test_local_and_remote_and_the_same_twice(flaky, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    addresses = ["flaky://a", str(tmp_path / "x"), "flaky://a", "flaky://b"]
    assert fetch_all(addresses) == [b"a", b"x", b"a", b"b"]


def test_an_error_shows_no_signature():
    (results,) = fetch_all(["http://127.0.0.1:9/a.png?Signature=hush"], attempts=1)
    assert isinstance(results, ImageError)
    assert "127.0.0.1:9/a.png" in str(results)
    assert "hush" not in str(results)


def test_an_object_of_s3_costs_one_request():
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path.partition("?")[0]))
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"data")

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {"anon": True, "endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        results = fetch_all(["s3://bucket/a.png", "s3://bucket/b.png"], options)
        server.shutdown()
    assert results == [b"data", b"data"]
    assert sorted(asked) == [("GET", "/bucket/a.png"), ("GET", "/bucket/b.png")]


def test_a_name_with_brackets_is_no_pattern(flaky, web):
    fsspec.filesystem("flaky").pipe_file("/a[1].png", b"one")
    fsspec.filesystem("flaky").pipe_file("/a1.png", b"another")
    assert fetch_all(["flaky:///a[1].png"]) == [b"one"]
    web.answers = {"/bucket/a%5B1%5D.png": [(200, b"one")]}
    options = {"anon": True, "endpoint_url": web.url}
    assert fetch_all(["s3://bucket/a[1].png"], options) == [b"one"]
    assert web.asked == [("GET", "/bucket/a%5B1%5D.png")]


def test_a_signed_url_costs_one_request_and_a_busy_server_is_asked_again(web):
    web.answers = {"/a.png": [(200, b"a")], "/b.png": [(503, b""), (429, b""), (200, b"b")]}
    addresses = [f"{web.url}/{name}.png?Signature=hush" for name in "ab"]
    assert fetch_all(addresses, first_pause=0.001) == [b"a", b"b"]
    assert sorted(web.asked) == [("GET", "/a.png")] + [("GET", "/b.png")] * 3


def test_a_refusal_of_a_web_server_is_final_and_shows_no_signature(web):
    web.answers = {"/a.png": [(403, b"")]}
    (results,) = fetch_all([f"{web.url}/a.png?Signature=hu%7Esh"], first_pause=60)
    assert str(results) == f"{web.url}/a.png could not be fetched: HTTP 403 Forbidden"
    assert web.asked == [("GET", "/a.png")]


def test_impossible_file_name_fails_only_its_own_fetch(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    results = fetch_all([f"{tmp_path}/x\0y", str(tmp_path / "a")], first_pause=60)
    assert results[1] == b"1"
    assert "no file can have this name" in str(results[0])


class HostedFileSystem(MemoryFileSystem):
    """As sftp's: one for each host, whose paths do not name the host."""

    protocol = "hosted"
    cachable = True

    def __init__(self, host="", **options):
        super().__init__(**options)
        self.host = host

    @staticmethod
    def _get_kwargs_from_urls(path):
        return {"host": path.partition("://")[2].partition("/")[0]}

    @classmethod
    def _strip_protocol(cls, path):
        rest = path.partition("://")[2]
        return f"/{rest.partition('/')[2]}" if rest else path

    def cat_file(self, path, start=None, end=None, **kwargs):
        return f"{path} of {self.host}".encode()


def test_the_same_path_on_two_hosts_is_two_files():
    fsspec.register_implementation("hosted", HostedFileSystem, clobber=True)
    results = fetch_all([f"hosted://{host}/a.png" for host in ("one", "two", "one")])
    assert results == [b"/a.png of one", b"/a.png of two", b"/a.png of one"]
