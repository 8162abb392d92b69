"""Reading an output: committed shards only, in order."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from salip_ray.config import load_config
from salip_ray.errors import OutputError
from salip_ray.output.reader import LabelOutput


def rows(*names):
    return [
        {"image_id": name, "uri": f"/in/{name}.png", "status": "empty", "masks": []}
        for name in names
    ]


def test_rows_are_in_order(write_output):
    out = write_output(rows("a", "b"), rows("c"))
    labels = LabelOutput.open(str(out))
    assert [row["image_id"] for row in labels.rows()] == ["a", "b", "c"]
    assert [set(row) for row in labels.rows(columns=["uri"])] == [{"uri"}] * 3


def test_classes_and_methods_are_those_of_the_job(write_output):
    prompts = {"right lung": ["a lung"], "left lung": ["another"], "heart": ["the heart"]}
    config = load_config(
        {"task": {"name": "chest", "prompts": prompts}},
        overrides=["run.modes=[gt_sam, unprompted]"],
    )
    labels = LabelOutput.open(str(write_output(rows("a"), config=config)))
    assert [(c.label, c.class_id) for c in labels.classes] == [
        ("right lung", 1),
        ("left lung", 2),
        ("heart", 3),
    ]
    assert labels.methods == ("gt_sam", "unprompted_confident", "unprompted_largest")


def test_uncommitted_shard_is_not_read(write_output):
    out = write_output(rows("a"), rows("b"), pending=2)
    (out / "shards" / "part-00001.parquet").rename(out / "shards" / ".part-00001.parquet.tmp")
    (out / "shards" / "part-00002.parquet.tmp").write_bytes(b"half a file")
    labels = LabelOutput.open(str(out))
    assert labels.shards == ("part-00000.parquet",)
    assert [row["image_id"] for row in labels.rows()] == ["a"]
    assert labels.n_images() == 4


def test_output_without_any_shard_has_no_rows(write_output):
    out = write_output(pending=2)
    (out / "shards").rmdir()
    labels = LabelOutput.open(str(out))
    assert labels.shards == ()
    assert list(labels.rows()) == []


def test_shards_past_five_digits_keep_their_order(write_output):
    out = write_output(rows("a"), rows("b"))
    (out / "shards" / "part-00000.parquet").rename(out / "shards" / "part-100000.parquet")
    assert [row["image_id"] for row in LabelOutput.open(str(out)).rows()] == ["b", "a"]


def test_output_in_another_store_is_read(write_output):
    import fsspec

    out = write_output(rows("a", "b"))
    memory = fsspec.filesystem("memory")
    memory.put(str(out), "/bucket/labels", recursive=True)
    try:
        assert len(list(LabelOutput.open("memory://bucket/labels").rows())) == 2
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no run.json, so it is not the output"),
        ("{", "run.json is not the record of a job"),
        ("[]", "run.json is not the record of a job"),
        (json.dumps({"schema_version": 99, "fingerprint": {}}), "schema_version 99.*reads 2 and 3"),
    ],
)
def test_other_folders_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError, match=message):
        LabelOutput.open(str(tmp_path))


def test_a_manifest_that_the_output_holds_itself_is_not_taken_from_elsewhere(write_output):
    out = write_output(rows("a"))
    with pytest.raises(OutputError, match="holds its manifest itself: leave --manifest out"):
        LabelOutput.open(str(out), manifest="names.parquet")


def test_a_manifest_with_another_number_of_images_is_that_of_another_run(write_output, tmp_path):
    out = write_output(rows("a"), rows("b"))
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(out / "manifest.parquet").slice(1), other)
    (out / "manifest.parquet").unlink()
    with pytest.raises(OutputError, match=r"of another run: it has 1 image, .* says 2"):
        LabelOutput.open(str(out), manifest=str(other))
