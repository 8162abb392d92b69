"""Each guarantee that verify checks is broken once, and must be named."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.errors import OutputError
from salip_ray.output import layout
from salip_ray.output.commit import describe
from salip_ray.output.masks import encode_png
from salip_ray.output.store_location import ATTEMPTS
from salip_ray.output.verify import verify
from salip_ray.sources import stores
from tests.unit.output.outputs import write_output


@pytest.fixture
def output(tmp_path):
    return write_output(tmp_path / "out")


def problems_of(store, **options):
    return [str(problem) for problem in verify(store.location, **options).problems]


def test_sound_output_has_no_problem(output):
    result = verify(output.location)
    assert result.problems == ()
    assert (result.images, result.shards, result.committed) == (5, 3, 3)
    assert (result.rows, result.label_maps) == (5, 4)


def rewrite(store, shard, *, rows=None, members=None):
    """Replace files of a shard, checksums included: only the content can tell."""
    store.delete(layout.SEAL)
    stats = json.loads(store.read(f"stats/part-{shard:05d}.json"))
    if rows is not None:
        buffer = io.BytesIO()
        pq.write_table(rows, buffer)
        store.write(f"shards/part-{shard:05d}.parquet", buffer.getvalue())
        stats["files"]["shards"] = describe(buffer.getvalue())
    if members is not None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        store.write(f"masks/part-{shard:05d}.tar", buffer.getvalue())
        stats["files"]["masks"] = describe(buffer.getvalue())
    store.write(f"stats/part-{shard:05d}.json", json.dumps(stats).encode())


def rows_of(store, shard):
    return pq.read_table(io.BytesIO(store.read(f"shards/part-{shard:05d}.parquet")))


def members_of(store, shard):
    with tarfile.open(fileobj=io.BytesIO(store.read(f"masks/part-{shard:05d}.tar"))) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def changed(rows, change):
    data = rows.to_pylist()
    change(data[0])
    return type(rows).from_pylist(data, schema=rows.schema)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda row: row.update(image_id="f" * 32), "1 row is lost"),
        (lambda row: row.update(uri="/other"), "not in the order"),
        (lambda row: row.update(status="fine"), "status 'fine'"),
        (lambda row: row.update(height=5), "is of size [4, 6], the image 5 x 6"),
        (lambda row: row.update(masks=[]), "is ok and has no mask"),
        (lambda row: row["masks"][0].update(area=7), "has 6 pixels, its area says 7"),
        (lambda row: row["masks"][0].update(bbox=[0.0, 0.0, 1.0, 1.0]), "its bbox says"),
        (lambda row: row["masks"].append(row["masks"][0]), "has 2 masks of 'lungs' by cascade"),
        (
            lambda row: row["masks"][0].update(proposed={"size": [4, 6], "counts": "}garbage"}),
            "has candidates that are no mask of 4 x 6",
        ),
        (lambda row: row["masks"][0].update(class_id=3), "has the class id 3, the task 1"),
        (
            lambda row: row.update(error={"stage": "a", "type": "b", "message": "c"}),
            "is ok and has an error",
        ),
    ],
)
def test_broken_row_is_named(output, change, problem):
    rewrite(output, 0, rows=changed(rows_of(output, 0), change))
    assert any(problem in line for line in problems_of(output)), problems_of(output)


def test_a_column_that_no_shard_has_is_named(output):
    rows = rows_of(output, 0)
    rewrite(output, 0, rows=rows.append_column("extra", pa.array([1] * len(rows))))
    assert any("has a column 'extra'" in line for line in problems_of(output))


def test_missing_and_repeated_rows_are_named(output):
    rows = rows_of(output, 0)
    rewrite(output, 0, rows=rows.slice(0, 1))
    assert any("1 row is lost" in line for line in problems_of(output))
    rewrite(output, 0, rows=rows.take([0, 0, 1]))
    assert any("1 row is twice" in line for line in problems_of(output))


def test_label_map_that_differs_from_its_row_is_named(output):
    good = members_of(output, 0)
    (name, png), (json_name, about) = good
    other = encode_png(np.ones((4, 6), np.uint8))
    small = encode_png(np.ones((2, 2), np.uint8))
    for members, problem in (
        ([(name, other), (json_name, about)], "differs from the masks of its row in 18 pixels"),
        ([(name, small), (json_name, about)], "is 2 x 2, its image 4 x 6"),
        ([(name, b"no png"), (json_name, about)], "cannot be read"),
        ([(json_name, about)], "has no label map"),
        ([(name, png)], "has no JSON"),
        ([(name, png), (json_name, b"{}")], "its JSON differs from its row"),
        ([*good, ("../../etc/passwd", b"")], "'../../etc/passwd' belongs to no row"),
        ([*good, good[0]], "is there twice"),
    ):
        rewrite(output, 0, members=members)
        assert any(problem in line for line in problems_of(output)), (problem, problems_of(output))


def test_changed_byte_is_named(output):
    for name in ("shards/part-00001.parquet", "masks/part-00001.tar"):
        data = output.read(name)
        output.write(name, data[:-1] + bytes([data[-1] ^ 1]))
        assert any(line.startswith(name) and "is altered" in line for line in problems_of(output))
        output.write(name, data[:-1])
        assert any(line.startswith(name) and "bytes" in line for line in problems_of(output))
        output.write(name, data)
    assert problems_of(output) == []


def test_missing_surplus_and_temporary_files_are_named(output):
    for name in ("masks/part-00000.tar", "stats/part-00000.json"):
        data = output.read(name)
        output.delete(name)
        assert problems_of(output) == [f"{name}: is missing"]
        output.write(name, data)
    output.write("shards/part-00007.parquet", b"x")
    assert any("does not have" in line for line in problems_of(output))
    output.delete("shards/part-00007.parquet")
    output.write("masks/.part-00000.tar.0123.tmp", b"")
    assert any("not a file of this output" in line for line in problems_of(output))
    assert problems_of(output, partial=True) == []


def test_unfinished_job_is_sound_only_with_partial(output):
    output.delete("shards/part-00002.parquet")
    assert any("1 of 3 is not committed" in line for line in problems_of(output))
    assert problems_of(output, partial=True) == []


def fail(monkeypatch, method, name, times):
    """Let a store fail a number of times for files whose path ends in a name."""
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    ask = getattr(LocalFileSystem, method)
    left = [None] * times

    def busy(self, path, *more, **others):
        if path.endswith(name) and left:
            left.pop()
            raise OSError("503 Slow Down https://h/x?X-Amz-Signature=hush")
        return ask(self, path, *more, **others)

    monkeypatch.setattr(LocalFileSystem, method, busy)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("cat_file", "run.json"),
        ("open", "manifest.parquet"),
        ("ls", "/masks"),
        ("cat_file", "masks/part-00001.tar"),
    ],
)
def test_failing_store_is_retried_and_is_no_problem_of_the_output(
    output, monkeypatch, method, name
):
    fail(monkeypatch, method, name, 1)
    assert problems_of(output) == []
    fail(monkeypatch, method, name, ATTEMPTS)
    with pytest.raises(OutputError, match=r"503 Slow Down https://h/x$"):
        verify(output.location)


def test_unreadable_file_is_named(output, monkeypatch):
    fail(monkeypatch, "cat_file", "masks/part-00001.tar", ATTEMPTS)
    result = CliRunner().invoke(app, ["verify", output.location])
    assert result.exit_code == 2
    assert f"cannot read {output}/masks/part-00001.tar: 503 Slow Down" in result.output


def test_command_exits_with_1_and_names_the_problem(output):
    assert CliRunner().invoke(app, ["verify", output.location]).exit_code == 0
    output.delete("masks/part-00001.tar")
    broken = CliRunner().invoke(app, ["verify", output.location])
    assert broken.exit_code == 1
    assert "masks/part-00001.tar: is missing" in broken.output


def test_output_with_hidden_names_and_manifest_outside(tmp_path):
    names = str(tmp_path / "elsewhere" / "names.parquet")
    store = write_output(tmp_path / "out", manifest=names, hidden=True)
    assert set(rows_of(store, 0)["uri"].to_pylist()) == {
        f"id:{image_id}" for image_id in rows_of(store, 0)["image_id"].to_pylist()
    }
    assert problems_of(store, manifest=names) == []
    without = CliRunner().invoke(app, ["verify", store.location])
    assert without.exit_code == 2
    assert "give the manifest with --manifest if it is stored elsewhere" in without.output
    assert CliRunner().invoke(app, ["verify", store.location, "--manifest", names]).exit_code == 0
    rewrite(store, 0, rows=changed(rows_of(store, 0), lambda row: row.update(uri="/in/0.png")))
    assert any("of other URIs" in line for line in problems_of(store, manifest=names))
