"""Read files of S3, the web and other stores concurrently.

Each kind of store has its own way to say that a file is another one than before. S3 is asked for
the listed version, and a body that does not fit its MD5 is fetched again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from fsspec.asyn import sync

from salip_ray.sources.locations import path_in
from salip_ray.sources.reads import (
    DamagedError,
    Read,
    changed,
    checked,
    etag_in,
    require_size,
    require_version,
)

_CHUNK = 1 << 20  # bytes
_MD5 = re.compile(r"[0-9a-f]{32}")
_WEB = frozenset({"http", "https"})
_other_etags: set[str] = set()  # servers whose etags look like MD5 sums and are none

_Fetch = Callable[[], Awaitable[tuple[bytes, str | None]]]  # bytes and etag


class _Body(Protocol):
    async def read(self, amount: int) -> bytes: ...


def read_remote_files(fs: Any, reads: Sequence[Read]) -> list[bytes | Exception]:
    """Return the bytes of each file of an ``AsyncFileSystem``, or the exception of its read."""
    return list(sync(fs.loop, _gather, fs, reads))


def read_remote_head(fs: Any, path: str, count: int) -> bytes:
    """Return the first ``count`` bytes of a file of an ``AsyncFileSystem``."""
    protocols = _protocols(fs)
    reader = _s3_head if "s3" in protocols else _web_head if protocols & _WEB else None
    if reader is None:
        return bytes(fs.cat_file(path, start=0, end=count))
    return bytes(sync(fs.loop, reader, fs, path, count))


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


async def _gather(fs: Any, reads: Sequence[Read]) -> list[Any]:
    protocols = _protocols(fs)
    reader = _s3 if "s3" in protocols else _web if protocols & _WEB else _ranged
    return await asyncio.gather(*(reader(fs, read) for read in reads), return_exceptions=True)


async def _s3(fs: Any, read: Read) -> bytes:
    bucket, key, version_id = fs.split_path(path_in(fs, read.address))
    asked: dict[str, str] = {"Bucket": bucket, "Key": key}
    if version_id:
        asked["VersionId"] = version_id
    elif read.version.etag:
        asked["IfMatch"] = f'"{read.version.etag}"'

    async def fetch() -> tuple[bytes, str | None]:
        try:
            answer = await fs._call_s3("get_object", **asked)
        except OSError as error:
            if _s3_code(error) in {"PreconditionFailed", "412"}:
                raise changed(read) from None
            raise
        etag = str(answer.get("ETag") or "").strip('"')
        try:
            if not version_id:
                require_version(read, etag)  # some servers ignore the condition
            require_size(read, answer.get("ContentLength"))
            data = await _read_body(answer["Body"], read.limit)
        finally:
            answer["Body"].close()
        # With a key of one's own or KMS, the etag looks like an MD5 sum and is none.
        encrypted = answer.get("SSECustomerAlgorithm") or answer.get("ServerSideEncryption") in {
            "aws:kms",
            "aws:kms:dsse",
        }
        return data, None if encrypted else etag

    return await _intact(read, fetch, server=f"s3 {fs.endpoint_url or fs.client_kwargs}")


async def _s3_head(fs: Any, path: str, count: int) -> bytes:
    """Read a range, but not to its end: some servers send with it the checksum of the object."""
    bucket, key, version_id = fs.split_path(path)
    version = {"VersionId": version_id} if version_id else {}
    asked = {"Bucket": bucket, "Key": key, **version, **_range(count)}
    try:
        answer = await fs._call_s3("get_object", **asked)
    except OSError as error:
        if _s3_code(error) in {"InvalidRange", "416"}:  # an empty file
            return b""
        raise
    try:
        return await _read_body(answer["Body"], count - 1)
    finally:
        answer["Body"].close()


async def _web(fs: Any, read: Read) -> bytes:
    url = path_in(fs, read.address)
    session = await fs.set_session()

    async def fetch() -> tuple[bytes, str | None]:
        async with session.get(fs.encode_url(url), **fs.kwargs) as answer:
            if answer.status == 404:
                raise FileNotFoundError(url)
            answer.raise_for_status()
            if "Content-Encoding" not in answer.headers:
                require_size(read, answer.content_length)
            data = await _read_body(answer.content, read.limit)
            return data, str(answer.headers.get("ETag", "")).strip('"')

    return await _intact(read, fetch, server=urlsplit(url).netloc)


async def _web_head(fs: Any, url: str, count: int) -> bytes:
    """Read the first bytes of an answer: not every server honours ranges."""
    session = await fs.set_session()
    options = {**fs.kwargs, "headers": {**fs.kwargs.get("headers", {}), **_range(count)}}
    async with session.get(fs.encode_url(url), **options) as answer:
        if answer.status == 404:
            raise FileNotFoundError(url)
        if answer.status == 416:  # an empty file
            return b""
        answer.raise_for_status()
        return await _read_body(answer.content, count - 1)


def _range(count: int) -> dict[str, str]:
    return {"Range": f"bytes=0-{count - 1}"}


async def _ranged(fs: Any, read: Read) -> bytes:
    """Read from a store of which no more is known than fsspec's interface."""
    path = path_in(fs, read.address)
    size = read.version.size
    if size is None:
        size = (await fs._info(path)).get("size")
    if size is not None:
        require_size(read, size)
    # No range is valid in an empty file.
    end = None if size == 0 else min(read.limit, read.limit if size is None else size) + 1
    data = bytes(await fs._cat_file(path, start=None if end is None else 0, end=end))
    if read.version.etag is not None:
        require_version(read, etag_in(await fs._info(path)))
    return checked(read, data)


async def _intact(read: Read, fetch: _Fetch, *, server: str) -> bytes:
    """Fetch, and once more if the bytes do not have the MD5 sum that the etag seems to be.

    Bytes that come twice are right: then the etag is no MD5 sum, and is not one on this server.
    """
    data, etag = await fetch()
    checked(read, data)
    if not etag or not _MD5.fullmatch(etag) or server in _other_etags or _md5(data) == etag:
        return data
    again, etag = await fetch()
    if again == data:
        _other_etags.add(server)
    elif _md5(again) != etag:
        raise DamagedError("it arrived damaged, twice and differently")
    return checked(read, again)


async def _read_body(body: _Body, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await body.read(min(_CHUNK, limit + 1 - size)):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    return b"".join(chunks)


def _s3_code(error: BaseException) -> str | None:
    answer = getattr(error.__cause__, "response", None)
    return str(answer["Error"].get("Code")) if isinstance(answer, dict) else None


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
