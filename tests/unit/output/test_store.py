"""Files that appear whole or not at all, on disk and elsewhere."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from salip_ray.errors import OutputError
from salip_ray.output.store import Store
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


def test_write_read_list(store):
    assert store.read("run.json") is None
    assert store.names() == []
    store.write("run.json", b"1")
    store.write("shards/part-00001.parquet", b"2")
    store.write("shards/part-00000.parquet", b"3")
    store.write("run.json", b"4")
    assert store.read("run.json") == b"4"
    assert store.names() == ["run.json", "shards"]
    assert store.names("shards") == ["part-00000.parquet", "part-00001.parquet"]
    found = store.read_all(["shards/part-00000.parquet", "run.json", "gone"])
    assert found == {"shards/part-00000.parquet": b"3", "run.json": b"4"}


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write("a", b"before")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"cannot write .*a: disk full"):
        store.write("a", b"after")
    assert store.read("a") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_killed_writes_leftover_is_no_entry_and_is_swept(tmp_path):
    store = Store(tmp_path)
    store.write("shards/a", b"1")
    (tmp_path / "shards" / ".b.parquet.0123456789ab.tmp").write_bytes(b"half")
    assert store.names("shards") == ["a"]
    store.sweep("shards")
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["a"]


def test_a_location_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        Store(tmp_path / "file").write("a", b"1")


def test_credentials_are_not_shown():
    store = Store("s3://bucket/out/", {"key": "AK", "secret": "hush"})
    assert (str(store), repr(store)) == ("s3://bucket/out", "Store('s3://bucket/out')")


@pytest.mark.parametrize("root", ["", "memory://"])
def test_a_location_with_brackets_in_its_name(tmp_path, root):
    store = Store(f"{root}{tmp_path}/out[1]*")
    store.write("a", b"1")
    store.write("b[2]", b"2")
    assert store.read_all(["a", "b[2]", "gone"]) == {"a": b"1", "b[2]": b"2"}


def test_a_store_that_is_sick_for_a_while_is_asked_again(monkeypatch):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/sick/a", b"1")
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    problems = [ConnectionError("503 slow down")] * 5
    cat = fs.cat_file

    def sick(path, *more, **others):
        if problems:
            raise problems.pop()
        return cat(path, *more, **others)

    monkeypatch.setattr(fs, "cat_file", sick)
    assert Store("memory://sick").read_all(["a"]) == {"a": b"1"}
    problems[:] = [ConnectionError("503 slow down")] * 6
    with pytest.raises(OutputError, match="cannot read memory://sick/a: 503 slow down"):
        Store("memory://sick").read_all(["a"])


def test_of_many_files_those_that_fail_are_asked_for_again_and_named(monkeypatch):
    fs = fsspec.filesystem("memory")
    names = [f"{number:02d}.json" for number in range(12)]
    for name in names:
        fs.pipe_file(f"/many/{name}", name.encode())
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    asked = []
    cat = fs.cat_file

    def every_fifth(path, *more, **others):
        asked.append(path)
        if len(asked) % 5 == 0 or path.endswith(worn):
            raise ConnectionError("503 slow down")
        return cat(path, *more, **others)

    worn = "none"
    monkeypatch.setattr(fs, "cat_file", every_fifth)
    assert Store("memory://many").read_all(names) == {name: name.encode() for name in names}
    assert asked[12:] == ["/many/04.json", "/many/09.json"]
    worn = "07.json"
    with pytest.raises(OutputError, match=r"cannot read memory://many/07\.json: 503 slow down"):
        Store("memory://many").read_all(names)


def test_a_password_in_the_location_is_not_shown(monkeypatch):
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    place = "memory://user:hush@host/out"
    refusal = PermissionError(f"{place} is closed")
    monkeypatch.setattr(fsspec.filesystem("memory"), "ls", lambda *_, **__: throw(refusal))
    with pytest.raises(OutputError, match="memory://user@host/out is closed"):
        Store(place).names()


def throw(error):
    raise error
