"""Alter every file and every field of an output, one at a time: verify must name each."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.errors import OutputError
from salip_ray.output import job_record, layout
from salip_ray.output.manifest import from_frozen
from salip_ray.output.masks import encode_png
from salip_ray.output.store import Store
from salip_ray.output.summary import summarise, write_summary
from salip_ray.output.verify import verify
from tests.unit.output.outputs import write_output

#: Fields that no check can tell from others of their kind, unless the output is sealed.
SEALED = (layout.RUN, layout.SUMMARY, layout.SEAL)


def leaves(value, path=()):
    """Yield the path of every value of a JSON document that holds no others."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path


def with_other_value(document, path):
    """Return a document with another value at a path."""
    altered = copy.deepcopy(document)
    *parents, last = path
    at = altered
    for key in parents:
        at = at[key]
    old = at[last]
    if isinstance(old, bool):
        at[last] = not old
    elif isinstance(old, int | float):
        at[last] = old + 1
    elif isinstance(old, str):
        at[last] = f"{old}x"
    else:
        at[last] = "x"
    return altered


def sealed_output(folder):
    """Write a complete output with a corrected label map among its reviews."""
    store = write_output(folder)
    frozen = job_record.read_manifest(store)
    png = encode_png(np.ones((4, 6), np.uint8))
    corrected, accepted = frozen["image_id"].to_pylist()[:2]
    name = f"{corrected}-{hashlib.sha256(png).hexdigest()[:16]}.png"
    store.write(f"{layout.REVIEW_MASKS}/{name}", png)
    decisions = {
        corrected: [{"verdict": "corrected", "classes": [1], "mask": name, "values": [1]}],
        accepted: [{"verdict": "accepted"}],
    }
    store.write(layout.DECISIONS, json.dumps({"decisions": decisions}).encode())
    return store


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return sealed_output(tmp_path_factory.mktemp("original") / "out")


@pytest.fixture
def output(original, tmp_path):
    shutil.copytree(original.location, tmp_path / "out")
    return Store(tmp_path / "out")


def test_an_unaltered_output_has_no_problem(output):
    assert verify(output.location).problems == ()


def findings(store, **options):
    """Return all that verify reports, be it a list of problems or one refusal."""
    try:
        return [str(problem) for problem in verify(store.location, **options).problems]
    except OutputError as refusal:
        return [str(refusal)]


def names_it(store, name):
    return any(name in finding for finding in findings(store))


def test_every_file_that_is_damaged_is_named(output):
    count = 0
    for name in sorted(output.all_names()):
        data = output.read(name)
        path = f"{output.location}/{name}"
        damages = {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "longer": data + b" x",
            "flipped": data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
            "garbage": b"\x00\xff" * 40,
        }
        for damage, content in damages.items():
            output.write(name, content)
            assert names_it(output, name), (name, damage, findings(output))
            count += 1
        output.delete(name)
        assert names_it(output, name.partition("/")[0]), (name, "deleted", findings(output))
        shutil.os.mkdir(path)
        assert names_it(output, name.partition("/")[0]), (name, "a folder", findings(output))
        shutil.os.rmdir(path)
        output.write(name, data)
        count += 2
    assert count > 80
    assert findings(output) == []


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_every_field_of_every_json_file_is_covered(output, every):
    count = 0
    for name in sorted(output.all_names()):
        if not name.endswith(".json"):
            continue
        data = output.read(name)
        document = json.loads(data)
        for path in list(leaves(document))[::every]:
            if name == layout.DECISIONS and path[-1] == 0 and path[-2] == "values":
                continue  # repeats what the label map holds
            output.write(name, json.dumps(with_other_value(document, path), indent=2).encode())
            assert findings(output), (name, path)
            count += 1
        output.write(name, data)
    assert count > 150 // every
    assert findings(output) == []


def write_manifest(store, table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    store.write(layout.MANIFEST, buffer.getvalue())


def unseal(store):
    """Let only the content tell: as in a job that is not finished."""
    store.delete(layout.SEAL)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image_id", "f" * 32),
        ("uri", "/in/other.png"),
        ("size", 7),
        ("etag", "x"),
        ("shard", 2),
        ("index", 3),
        ("volume", "v"),
        ("slice", 1),
    ],
)
def test_every_column_of_the_manifest_is_checked_without_a_seal(output, column, value):
    unseal(output)
    table = job_record.read_manifest(output)
    rows = table.to_pylist()
    rows[1][column] = value
    write_manifest(output, pa.Table.from_pylist(rows, schema=table.schema))
    reported = [str(problem) for problem in verify(output.location, partial=True).problems]
    assert reported, column
    assert any("manifest" in line or "row" in line for line in reported), reported


@pytest.mark.parametrize("name", ["notes.txt", "shards/notes.txt", "reviews/masks/stray.png"])
def test_a_stray_file_is_named(output, name):
    output.write(name, b"x")
    assert names_it(output, name)


@pytest.mark.parametrize(
    "change",
    [
        lambda decisions, first: decisions.update({"0" * 32: [{"verdict": "accepted"}]}),
        lambda decisions, first: decisions.update({first: [{"verdict": "fine"}]}),
        lambda decisions, first: decisions.update({first: "accepted"}),
        lambda decisions, first: decisions[first][0].update(classes=[9]),
        lambda decisions, first: decisions[first][0].update(mask="../../run.json"),
        lambda decisions, first: decisions[first][0].update(mask=f"{first}-{'0' * 16}.png"),
    ],
)
def test_a_review_that_cannot_be_right_is_named(output, change):
    document = json.loads(output.read(layout.DECISIONS))
    change(document["decisions"], next(iter(document["decisions"])))
    output.write(layout.DECISIONS, json.dumps(document).encode())
    assert names_it(output, "reviews")


def test_an_output_with_another_root_digest_is_refused_even_if_its_files_agree(output, tmp_path):
    digest = verify(output.location).digest
    assert findings(output, expect=digest) == []
    other = sealed_output(tmp_path / "other")
    summary = json.loads(other.read(layout.SUMMARY))
    other.write(layout.SUMMARY, json.dumps({**summary, "wall_seconds": 1.5}).encode())
    job_record.open_seal(other)
    write_summary(other, summarise(other, from_frozen(job_record.read_manifest(other), 2)))
    assert findings(other) == []
    assert any(digest in finding for finding in findings(other, expect=digest))


def test_an_opened_seal_is_a_problem_unless_the_job_is_not_finished(output):
    job_record.open_seal(output)
    assert any("seal.json: is open" in finding for finding in findings(output))
    assert verify(output.location, partial=True).problems == ()
