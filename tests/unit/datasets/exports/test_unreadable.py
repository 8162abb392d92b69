"""Images that cannot be read any more: an export continues without them and lists them."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.datasets.exports import coco, decathlon, hf, nnunet, review, webdataset, yolo
from salip_ray.datasets.exports.cases import Split
from salip_ray.datasets.exports.unreadable import UNREADABLE
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError
from salip_ray.review.tools import cvat, label_studio, labelme

EXPORTS = {
    "nnunet": nnunet.export,
    "decathlon": decathlon.export,
    "yolo": partial(yolo.export, val_on_train=True),
    "webdataset": partial(webdataset.export, shard_size=2),
    "hf": partial(hf.export, shard_size=2),
    "review": review.export,
    "cvat": cvat.export,
    "labelme": labelme.export,
    "label-studio": partial(label_studio.export, copy=True),
}


@pytest.fixture
def damaged(output):
    """An output of six images, of which one is gone and one is damaged."""
    labels = PseudoLabels(str(output))
    gone, broken = (Path(e.picture.uri) for e in labels.entries[1:3])
    whole = {path: path.read_bytes() for path in (gone, broken)}
    broken.write_bytes(whole[broken][:40])
    gone.unlink()
    return labels, whole


def folder_of(dest):
    return next(dest.glob("Dataset*"), dest)


def listed(dest):
    with (folder_of(dest) / UNREADABLE).open() as file:
        return {row["image_id"]: row["reason"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", EXPORTS)
def test_unreadable_images_are_left_out_counted_and_listed(damaged, tmp_path, name):
    labels, _ = damaged
    dest = tmp_path / "dest"
    assert EXPORTS[name](labels, str(dest)) == 4
    record = json.loads((folder_of(dest) / "export.json").read_text())
    assert (record["complete"], record["images_written"]) == (True, 4)
    reasons = listed(dest)
    assert list(reasons) == [entry.image_id for entry in labels.entries[1:3]] or (
        name == "review" and len(reasons) == 2
    )
    assert any("does not exist" in reason for reason in reasons.values())
    assert labels.left_out["unreadable"] == 2
    table = "queue.csv" if name == "review" else "provenance.csv"
    with (folder_of(dest) / table).open() as file:
        ids = {row["image_id"] for row in csv.DictReader(file)}
    assert ids == {entry.image_id for entry in labels.entries} - set(reasons)


def test_coco_leaves_out_images_that_it_would_copy(damaged, tmp_path, monkeypatch):
    labels, _ = damaged
    monkeypatch.setattr(coco, "_can_stay", lambda labels: False)
    assert coco.export(labels, str(tmp_path / "coco")) == 4
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    files = {image["file_name"] for image in content["images"]}
    assert len(files) == 4
    assert all((tmp_path / "coco" / name).is_file() for name in files)
    assert {a["image_id"] for a in content["annotations"]} <= {i["id"] for i in content["images"]}


def test_same_command_adds_images_that_are_readable_again(damaged, tmp_path):
    labels, whole = damaged
    split = Split(val=0.34, seed=1, group_by="folder")
    dest = tmp_path / "dest"
    assert decathlon.export(labels, str(dest), split=split) == 4
    for path, data in whole.items():
        path.write_bytes(data)
    again = PseudoLabels(labels.output.uri)
    assert decathlon.export(again, str(dest), split=split) == 6
    content = json.loads((dest / "dataset.json").read_text())
    assert len(content["training"]) + len(content["validation"]) == 6
    assert content["numTraining"] == len(content["training"])
    assert listed(dest) == {}


def test_resumed_shards_keep_their_list(damaged, tmp_path):
    labels, _ = damaged
    dest = tmp_path / "dest"
    webdataset.export(labels, str(dest), shard_size=2)
    first = listed(dest)
    again = PseudoLabels(labels.output.uri)
    assert webdataset.export(again, str(dest), shard_size=2) == 4
    assert listed(dest) == first
    assert len((dest / "provenance.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("name", EXPORTS)
def test_export_of_images_that_have_all_moved_fails_with_the_first_reason(output, tmp_path, name):
    labels = PseudoLabels(str(output), images_root=str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"none of 6 images can be read; the first: .*not exist"):
        EXPORTS[name](labels, str(tmp_path / "dest"))


def test_command_says_how_many_images_cannot_be_read(damaged, tmp_path):
    labels, _ = damaged
    for command in (["decathlon"], ["review"]):
        dest = tmp_path / command[0]
        done = CliRunner().invoke(app, ["export", *command, labels.output.uri, str(dest)])
        assert done.exit_code == 0, done.output
        assert "2 images that cannot be read (unreadable.csv" in " ".join(done.output.split())
        assert f"4 images in {dest}" in done.output
