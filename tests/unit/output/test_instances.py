"""The instances of a mask: stored, read and checked; outputs of the version without them."""

from __future__ import annotations

import io
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.config import ClassSpec
from salip_ray.output.cells import instance_cells, pack_components, pack_masks
from salip_ray.output.commit import commit_shard
from salip_ray.output.committed_rows import merge_committed_rows
from salip_ray.output.masks import (
    area,
    component_rles,
    decode_rle,
    encode_rle,
    region_rles,
    union_of,
)
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store import Store
from salip_ray.output.verify import verify
from salip_ray.output.verify_row import check_row
from salip_ray.schema import (
    LABEL_SCHEMA,
    SCHEMA_VERSION,
    ClassMask,
    Instance,
    SamScores,
    label_schema,
)
from tests.unit.output.outputs import write_output
from tests.unit.output.test_commit import CLASSES, refined, table

CLASS = ClassSpec(label="lungs", class_id=1, sentences=("the lungs",), top_k=2)
LEFT, RIGHT = np.zeros((2, 4, 6), bool)
LEFT[1:3, 0:3] = RIGHT[0:4, 2:5] = True


def two_lungs():
    """Return a row whose mask is the union of two masks that overlap."""
    instances = (
        Instance(LEFT, 3, SamScores(0.9, 0.8), 0.7),
        Instance(RIGHT, 5, SamScores(0.6, 0.5)),
    )
    made = ClassMask(
        *("cascade", "lungs", 1, LEFT | RIGHT), candidate_ids=(3, 5, 8), instances=instances
    )
    return {**refined(0), "masks": pack_masks([made])}


def problems(row):
    stored = pa.Table.from_pylist([row], schema=LABEL_SCHEMA).to_pylist()[0]
    return list(check_row(stored, [CLASS]))


def test_the_union_of_the_stored_instances_is_the_stored_mask():
    row = two_lungs()
    assert problems(row) == []
    (cell,) = row["masks"]
    assert union_of(item["rle"] for item in cell["instances"]) == cell["rle"]
    first, second = instance_cells(cell)
    assert (first["candidate_id"], first["area"], first["bbox"]) == (3, 6, (0, 1, 3, 2))
    assert (first["predicted_iou"], first["confidence"]) == (0.9, 0.7)
    assert np.isnan(second["confidence"])
    np.testing.assert_array_equal(decode_rle(second["rle"]), RIGHT)


def test_a_mask_without_instances_is_one_object():
    (cell,) = pack_masks([ClassMask("cascade", "lungs", 1, LEFT)])
    assert cell["instances"] == []
    assert instance_cells(cell) == [cell]
    del cell["instances"]  # an older version
    assert instance_cells(cell) == [cell]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda items: items.pop(), "has one instance"),
        (lambda items: items.append(items[0]), None),
        (lambda items: items[0].update(area=7), "an instance 0 that has 6 pixels, its area says 7"),
        (lambda items: items[1].update(bbox=[0.0, 0.0, 1.0, 1.0]), "instance 1 that has the box"),
        (lambda items: items[1].update(candidate_id=4), "of candidate 4, of which it is not made"),
        (lambda items: items[1]["rle"].update(size=[6, 4]), "instance 1 that is no mask"),
        (lambda items: items[1]["rle"].update(counts="0"), "instance 1 that is no mask"),
        (lambda items: items[1].update(items[0]), "is not the union of its instances"),
        (
            lambda items: items[0].update(
                rle=encode_rle(LEFT & False), area=0, bbox=[0.0, 0.0, 0.0, 0.0]
            ),
            "instance 0 without a pixel",
        ),
    ],
)
def test_every_field_of_an_instance_is_checked(change, problem):
    row = two_lungs()
    change(row["masks"][0]["instances"])
    named = problems(row)
    assert named == [] if problem is None else any(problem in line for line in named), named


def test_components_of_a_mask_are_separate_objects():
    both = np.zeros((4, 6), bool)
    both[0:2, 0:2] = both[2, 2] = both[0, 5] = True
    assert [area(rle) for rle in component_rles(both)] == [5, 1]
    assert component_rles(both & False) == []
    first, second = pack_components(both, 0.5)
    assert (first["area"], first["bbox"], first["confidence"]) == (5, (0.0, 0.0, 3.0, 3.0), 0.5)
    assert second["candidate_id"] is None
    assert pack_components(both & (np.arange(6) < 4)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 23)])
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1])
def test_regions_have_the_rles_of_their_masks(shape, share):
    rng = np.random.default_rng(7)
    regions = rng.integers(-2, 5, shape) * (rng.random(shape) < share)
    expected = [encode_rle(regions == value) for value in np.unique(regions) if value > 0]
    assert region_rles(regions) == expected


def test_thousands_of_components_need_no_dense_mask_each():
    specks = np.zeros((1024, 1024), bool)
    specks[::8, ::8] = True
    tracemalloc.start()
    try:
        assert len(component_rles(specks)) == 128 * 128
        assert tracemalloc.get_traced_memory()[1] < 200 * specks.size
    finally:
        tracemalloc.stop()


def test_outputs_of_the_version_before_are_read_and_verified(tmp_path):
    store = write_output(tmp_path / "out", version=2)
    assert verify(store.location).problems == ()
    labels = LabelOutput.open(store.location)
    cell = next(row["masks"][0] for row in labels.rows() if row["masks"])
    assert "instances" not in cell
    assert instance_cells(cell) == [cell]
    files = [json.loads(store.read(name)) for name in ("summary.json", "stats/part-00000.json")]
    assert [file["schema_version"] for file in files] == [2, 2]


def test_a_column_of_a_newer_version_is_a_problem_of_an_older_output(tmp_path):
    store = write_output(tmp_path / "out")
    run = json.loads(store.read("run.json"))
    store.write("run.json", json.dumps({**run, "schema_version": 2}).encode())
    named = [str(problem) for problem in verify(store.location).problems]
    assert any("another type of column 'masks'" in line for line in named)


def test_a_shard_of_the_version_before_is_written_again_in_that_version(tmp_path):
    store = Store(tmp_path / "out")
    rows = [refined(0), refined(1, "error"), refined(2, "empty"), refined(3)]
    commit_shard(store, 2, table(*rows), 4, CLASSES, version=2)
    name = "shards/part-00002.parquet"
    assert pq.read_schema(io.BytesIO(store.read(name))).equals(label_schema(2))
    merged, before = merge_committed_rows(store, 2, table({**two_lungs(), "_seq": 1}))
    commit_shard(store, 2, merged, 4, CLASSES, before=before, version=2)
    again = pq.read_table(io.BytesIO(store.read(name)))
    assert again.schema.equals(label_schema(2))
    assert again["masks"][1].as_py()[0]["area"] == int((LEFT | RIGHT).sum())


def test_the_present_version_only_adds_a_field():
    assert SCHEMA_VERSION == 3
    old, new = label_schema(2), label_schema(3)
    assert old.names == new.names
    (name,) = [field.name for field in new if old.field(field.name) != field]
    before, after = (schema.field(name).type.value_type for schema in (old, new))
    assert [field.name for field in after] == [*(field.name for field in before), "instances"]
