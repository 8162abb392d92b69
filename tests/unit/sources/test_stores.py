"""Asking stores: no name is a pattern, what may pass is told from what does not, nothing leaks."""

from __future__ import annotations

import aiohttp
import fsspec
import pytest
from yarl import URL

from salip_ray.sources.stores import (
    describe_error,
    is_final,
    read_each,
    read_existing,
    with_retries,
)


def answered(status, url="http://h/a.png?Signature=hush"):
    info = aiohttp.RequestInfo(URL(url), "GET", {}, URL(url))
    return aiohttp.ClientResponseError(info, (), status=status, message="No\nway")


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("a[1].png", "a1.png", "b*.png", "b2.png"):
        fs.pipe_file(f"/{name}", name.encode())
    yield fs
    fs.store.clear()


def test_a_name_is_no_pattern(memory):
    results = read_each(memory, ["/b*.png", "/a[1].png", "/a[1].png", "/c?.png"])
    assert (results["/b*.png"], results["/a[1].png"]) == (b"b*.png", b"a[1].png")
    assert isinstance(results["/c?.png"], FileNotFoundError)
    assert len(results) == 3


def test_read_existing_omits_only_missing_files(memory, sick):
    assert read_existing(memory, ["/a1.png", "/gone"]) == {"/a1.png": b"a1.png"}
    fs = fsspec.filesystem("sick")
    fs.pipe_file("/y", b"y")
    sick.failures = {"x": [ConnectionError("503")] * 4, "y": [ConnectionError("503")]}
    results = read_existing(fs, ["/x", "/y", "/gone"])
    assert results["/y"] == b"y"
    assert isinstance(results["/x"], ConnectionError)
    assert len(results) == 2
    assert sorted(sick.asked) == ["gone", *"xxxx", *"yy"]


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (answered(403), True),
        (answered(410), True),
        (answered(408), False),
        (answered(429), False),
        (answered(503), False),
        (FileNotFoundError(), True),
        (ConnectionError(), False),
        (TimeoutError(), False),
    ],
)
def test_only_transient_errors_are_retried(error, final):
    tries = []

    def fail():
        tries.append(1)
        raise error

    assert is_final(error) is final
    with pytest.raises(type(error)):
        with_retries(fail, attempts=3, first_pause=0.0001)
    assert len(tries) == (1 if final else 3)


@pytest.mark.parametrize(
    ("error", "address", "message"),
    [
        (answered(403), "", "HTTP 403 No way"),
        (
            OSError("cannot reach http://u:pw@h/a?Signature=hush now"),
            "",
            "cannot reach http://h/a now",
        ),
        (aiohttp.InvalidURL(URL("http://h/a?Signature=hush")), "", "http://h/a"),
        (OSError("no sftp://u:hush@h/x  y"), "sftp://u:hush@h/x  y", "no sftp://u@h/x y"),
        (OSError("is s3://b/what?it=is"), "", "is s3://b/what?it=is"),
        (TimeoutError(), "", "TimeoutError"),
    ],
)
def test_error_is_described_in_one_line_without_credentials(error, address, message):
    assert describe_error(error, address) == message
