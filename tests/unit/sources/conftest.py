"""Stores that misbehave as they are told to."""

from __future__ import annotations

from typing import ClassVar

import fsspec
import pytest
from botocore.exceptions import NoCredentialsError
from fsspec.implementations.memory import MemoryFileSystem

from salip_ray.sources import stores


class KeylessFileSystem(MemoryFileSystem):
    """Raises for every question what boto does where it finds no key: no OSError."""

    protocol = "keyless"

    def _refuse(self, *_, **__):
        raise NoCredentialsError

    info = isfile = isdir = exists = find = glob = ls = cat_file = open = _refuse


@pytest.fixture
def keyless():
    fsspec.register_implementation("keyless", KeylessFileSystem, clobber=True)


class SickFile:
    """A file whose first reads fail."""

    def __init__(self, file, owner, name):
        self.file, self.owner, self.name = file, owner, name

    def read(self, size=-1):
        self.owner.fail(self.name)
        return self.file.read(size)

    def seek(self, *position):
        return self.file.seek(*position)

    def tell(self):
        return self.file.tell()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


class SickFileSystem(MemoryFileSystem):
    """Memory, but the first reads of a file raise the given errors."""

    protocol = "sick"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    failures: ClassVar[dict] = {}
    asked: ClassVar[list] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("sick://"))

    @classmethod
    def fail(cls, path):
        name = path.rpartition("/")[2]
        cls.asked.append(name)
        if cls.failures.get(name):
            raise cls.failures[name].pop(0)

    def open(self, path, mode="rb", **kwargs):
        file = super().open(path, mode, **kwargs)
        return SickFile(file, type(self), path) if mode == "rb" else file

    def cat_file(self, path, start=None, end=None, **kwargs):
        self.fail(path)
        return super().cat_file(path, start, end)


@pytest.fixture
def sick(monkeypatch):
    fsspec.register_implementation("sick", SickFileSystem, clobber=True)
    SickFileSystem.store.clear()
    SickFileSystem.failures, SickFileSystem.asked = {}, []
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    return SickFileSystem


class HostedFileSystem(MemoryFileSystem):
    """Memory, but as sftp's client: names of files do not tell the host, which it must be told."""

    protocol = "hosted"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def __init__(self, host, **options):
        super().__init__(**options)
        assert host == "here"

    @classmethod
    def _strip_protocol(cls, path):
        scheme, _, rest = path.rpartition("://")
        return super()._strip_protocol(f"/{rest.partition('/')[2]}" if scheme else rest)

    @staticmethod
    def _get_kwargs_from_urls(url):
        return {"host": url.partition("://")[2].partition("/")[0]}


@pytest.fixture
def hosted():
    fsspec.register_implementation("hosted", HostedFileSystem, clobber=True)
    HostedFileSystem.store.clear()
    HostedFileSystem("here").pipe_file("/in/a.png", b"1")
    return "hosted://here"
