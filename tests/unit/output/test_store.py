"""Whole files, on disk and elsewhere: atomic writes, retries, and errors without secrets."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from salip_ray.errors import OutputError, StoreError
from salip_ray.output import local_files
from salip_ray.output.store import Store, UnconditionalStoreError
from salip_ray.output.store_location import ATTEMPTS
from salip_ray.sources import stores


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        yield Store(tmp_path / "out")
        return
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield Store("memory://out")
    fs.store.clear()


@pytest.fixture
def memory(monkeypatch):
    """The memory filesystem, empty, whose pauses between attempts take no time."""
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def test_written_files_are_read_and_listed(store):
    assert store.read("run.json") is None
    assert store.names() == []
    store.write("run.json", b"1")
    store.write("shards/part-00001.parquet", b"2")
    store.write("shards/part-00000.parquet", b"3")
    store.write("run.json", b"4")
    assert store.read("run.json") == b"4"
    assert store.names() == ["run.json", "shards"]
    assert store.names("shards") == ["part-00000.parquet", "part-00001.parquet"]
    assert store.all_names() == {
        "run.json",
        "shards/part-00000.parquet",
        "shards/part-00001.parquet",
    }
    contents = store.read_all(["shards/part-00000.parquet", "run.json", "gone"])
    assert contents == {"shards/part-00000.parquet": b"3", "run.json": b"4"}


def test_missing_location_is_empty(store):
    assert store.names("folder") == []
    assert store.versions("folder") == {}
    assert store.all_names() == set()
    assert store.read_with_version("a") == (None, None)
    assert not store.exists("a")
    store.delete("a")


def test_opened_file_is_read_in_parts(store):
    store.write("a", b"0123456789")
    with store.open("a") as stream:
        stream.seek(5)
        assert stream.read(2) == b"56"
    with pytest.raises(FileNotFoundError, match="gone"), store.open("gone"):
        pass


def test_content_that_cannot_be_parsed_names_the_file(store):
    store.write("a", b"x")
    with pytest.raises(StoreError, match=r"cannot read \S+/a: not a table"), store.open("a"):
        raise ValueError("not a table")


def test_version_changes_with_the_content(store):
    store.write("folder/a", b"1")
    store.write("folder/b", b"1")
    before = store.versions("folder")
    store.write("folder/a", b"12")
    after = store.versions("folder")
    assert before.keys() == after.keys() == {"a", "b"}
    assert (before["a"] == after["a"], before["b"] == after["b"]) == (False, True)
    assert store.read_with_version("folder/a")[0] == b"12"


def test_create_writes_only_the_first_time(store):
    assert store.create("a", b"1") is True
    assert store.create("a", b"2") is False
    assert store.read("a") == b"1"
    assert store.names() == ["a"]


def test_file_system_without_hard_links_has_no_conditional_write(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(local_files.os, "link", refuse)
    with pytest.raises(UnconditionalStoreError, match="no conditional write"):
        Store(tmp_path).create("a", b"1")
    assert list(tmp_path.iterdir()) == []


def refused_by_s3(code="PreconditionFailed"):
    return ClientError({"Error": {"Code": code, "Message": "condition failed"}}, "PutObject")


class ConditionalMemory:
    """Lets the memory filesystem answer to If-Match as S3 does."""

    def __init__(self, fs, monkeypatch):
        self.fs, self.etags, self.pipe = fs, {}, fs.pipe_file
        monkeypatch.setattr(fs, "protocol", ("memory", "s3"))
        monkeypatch.setattr(fs, "pipe_file", self.pipe_file)
        info = fs.info
        monkeypatch.setattr(
            fs, "info", lambda path, **_: {**info(path), "ETag": self.etags.get(path)}
        )

    def pipe_file(self, path, data, mode="overwrite", IfMatch=None):
        if IfMatch is not None and IfMatch != self.etags.get(path):
            error = OSError(22, "At least one of the pre-conditions you specified did not hold")
            raise error from refused_by_s3()
        self.pipe(path, data, mode=mode)
        self.etags[path] = f'"{hash(data)}"'


def test_replace_writes_only_if_the_version_is_current(memory, monkeypatch):
    ConditionalMemory(memory, monkeypatch)
    store = Store("memory://conditional")
    store.write("a", b"1")
    _, version = store.read_with_version("a")
    assert store.replace("a", b"2", version) is True
    assert store.replace("a", b"3", version) is False
    assert store.read("a") == b"2"


def test_replace_is_unsupported_on_other_stores(store):
    store.write("a", b"1")
    _, version = store.read_with_version("a")
    with pytest.raises(UnconditionalStoreError):
        store.replace("a", b"2", version)


def test_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write("a", b"before")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match=r"cannot write .*a: disk full"):
        store.write("a", b"after")
    assert store.read("a") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_written_file_is_synced_before_it_appears(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(
        local_files.os,
        "fsync",
        lambda file: (synced.append((tmp_path / "a").exists()), sync(file)),
    )
    Store(tmp_path).write("a", b"1")
    assert synced == [False]


def test_temporary_file_of_a_killed_writer_is_no_entry_and_is_swept(tmp_path):
    store = Store(tmp_path)
    store.write("shards/a", b"1")
    temporary = tmp_path / "shards" / ".b.parquet.0123456789ab.tmp"
    temporary.write_bytes(b"half")
    assert store.names("shards") == ["a"]
    assert store.temporary_names("shards") == [temporary.name]
    assert store.all_names() == {"shards/a"}
    (tmp_path / ".cache.tmp").mkdir()  # another user's folder
    store.sweep()
    assert not temporary.exists()
    assert store.all_names() == {"shards/a"}
    assert (tmp_path / ".cache.tmp").is_dir()


def test_create_whose_temporary_file_was_swept_does_not_overwrite(tmp_path, monkeypatch):
    store = Store(tmp_path)
    link = local_files.os.link

    def link_late(temporary, path):
        path.write_bytes(b"theirs")  # another writer was first, and cleaned up
        Store(tmp_path).sweep()
        link(temporary, path)

    monkeypatch.setattr(local_files.os, "link", link_late)
    assert store.create("lease.json", b"ours") is False
    assert store.read("lease.json") == b"theirs"


def test_file_elsewhere_is_read_and_written_there(tmp_path):
    store = Store(tmp_path / "out", elsewhere={"names": str(tmp_path / "other" / "n.parquet")})
    store = pickle.loads(pickle.dumps(store))
    store.write("names", b"1")
    assert (tmp_path / "other" / "n.parquet").read_bytes() == b"1"
    assert store.read("names") == b"1"
    assert store.exists("names")
    assert store.names() == []
    assert (store.is_elsewhere("names"), store.is_elsewhere("a")) == (True, False)
    store.delete("names")
    assert store.read("names") is None


def test_file_elsewhere_may_not_be_in_the_location(tmp_path):
    with pytest.raises(OutputError, match=r"must be a file outside of"):
        Store(tmp_path / "out", elsewhere={"names": str(tmp_path / "out" / "n.parquet")})


def test_location_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"cannot write \S+/file/a"):
        Store(tmp_path / "file").write("a", b"1")


@pytest.mark.parametrize("root", ["", "memory://"])
def test_location_may_have_brackets_in_its_name(tmp_path, root):
    store = Store(f"{root}{tmp_path}/out[1]*")
    store.write("a", b"1")
    store.write("b[2]", b"2")
    assert store.read_all(["a", "b[2]", "gone"]) == {"a": b"1", "b[2]": b"2"}


# ------------------------------------------------------------------------------------- retries


def test_store_that_fails_for_a_while_is_retried(memory, monkeypatch):
    memory.pipe_file("/failing/a", b"1")
    problems = [ConnectionError("503 slow down")] * (ATTEMPTS - 1)
    cat = memory.cat_file

    def fail(path, *more, **others):
        if problems:
            raise problems.pop()
        return cat(path, *more, **others)

    monkeypatch.setattr(memory, "cat_file", fail)
    assert Store("memory://failing").read_all(["a"]) == {"a": b"1"}
    problems[:] = [ConnectionError("503 slow down")] * ATTEMPTS
    with pytest.raises(StoreError, match="cannot read memory://failing/a: 503 slow down"):
        Store("memory://failing").read_all(["a"])


def test_of_many_files_only_those_that_fail_are_retried(memory, monkeypatch):
    names = [f"{number:02d}.json" for number in range(12)]
    for name in names:
        memory.pipe_file(f"/many/{name}", name.encode())
    requests = []
    cat = memory.cat_file

    def fail_every_fifth(path, *more, **others):
        requests.append(path)
        if len(requests) % 5 == 0 or path.endswith(broken):
            raise ConnectionError("503 slow down")
        return cat(path, *more, **others)

    broken = "none"
    monkeypatch.setattr(memory, "cat_file", fail_every_fifth)
    assert Store("memory://many").read_all(names) == {name: name.encode() for name in names}
    assert requests[12:] == ["/many/04.json", "/many/09.json"]
    broken = "07.json"
    with pytest.raises(StoreError, match=r"cannot read memory://many/07\.json: 503 slow down"):
        Store("memory://many").read_all(names)


# ------------------------------------------------------------------------------------- secrets


def test_credentials_are_not_part_of_the_name():
    store = Store("s3://bucket/out/", {"key": "AK", "secret": "hush"})
    assert (str(store), repr(store)) == ("s3://bucket/out", "Store('s3://bucket/out')")


class AzureError(Exception):
    """As azure.core raises it: neither an OSError nor a ValueError."""


SIGNED = "https://acct.blob.core.windows.net/c/a.tar?sv=2024&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D"
ERRORS = [
    AzureError(f"Server failed to authenticate the request to {SIGNED}"),
    EndpointConnectionError(endpoint_url="https://user:c2VjcmV0LXNpZ25hdHVyZQ@minio:9000/b?x=1"),
    ClientError(
        {"Error": {"Code": "Denied", "Message": "token c2VjcmV0LXNpZ25hdHVyZQ refused"}}, "Put"
    ),
    PermissionError("memory://user:c2VjcmV0LXNpZ25hdHVyZQ@host/out is closed"),
    RuntimeError("account_key=c2VjcmV0LXNpZ25hdHVyZQ is wrong"),
]
OPTIONS = {"account_key": "c2VjcmV0LXNpZ25hdHVyZQ", "client_kwargs": {"token": "other-secret"}}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("pipe_file", lambda store: store.write("a", b"1")),
        ("pipe_file", lambda store: store.create("a", b"1")),
        ("cat_file", lambda store: store.read("a")),
        ("cat_file", lambda store: store.read_all(["a"])),
        ("ls", lambda store: store.names()),
        ("ls", lambda store: store.versions()),
        ("find", lambda store: store.all_names()),
        ("info", lambda store: store.read_with_version("a")),
        ("rm_file", lambda store: store.delete("a")),
    ],
)
def test_any_error_of_a_client_becomes_a_store_error_without_secrets(
    memory, monkeypatch, error, method, action
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(type(memory), method, fail)
    with pytest.raises(StoreError) as raised:
        action(Store("memory://user:c2VjcmV0LXNpZ25hdHVyZQ@host/out", OPTIONS))
    message = str(raised.value)
    assert message.startswith("cannot ")
    assert "memory://user@host/out" in message
    assert "c2VjcmV0LXNpZ25hdHVyZQ" not in message
    assert "\n" not in message
    assert raised.value.__suppress_context__
