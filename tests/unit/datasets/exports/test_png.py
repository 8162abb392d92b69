"""One palette PNG per image, with the same stem."""

from __future__ import annotations

import csv
import shutil

import numpy as np
from PIL import Image as Pil

from salip_ray.datasets.exports import palette, png
from salip_ray.datasets.exports.cases import Split
from salip_ray.datasets.pseudo_labels import PseudoLabels


def test_every_mask_has_the_path_and_stem_of_its_image(output, tmp_path):
    labels = PseudoLabels(str(output))
    assert png.export(labels, str(tmp_path / "png")) == 6
    for entry in labels.entries:
        path = entry.uri.removeprefix(f"{labels.reader.images.base}/")
        with Pil.open(tmp_path / "png" / path) as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.array(picture), labels.label_map(entry))
            assert tuple(picture.getpalette()[3:6]) == palette.colours()[1]
    with (tmp_path / "png/provenance.csv").open(newline="") as file:
        names = {row["image_id"]: row["name"] for row in csv.DictReader(file)}
    assert names[labels.entries[0].image_id] == "patient0/view0.png"


def test_a_split_has_two_folders(output, tmp_path):
    labels = PseudoLabels(str(output))
    png.export(labels, str(tmp_path / "png"), split=Split(val=0.34, seed=1, group_by="folder"))
    train = list((tmp_path / "png/train").rglob("*.png"))
    val = list((tmp_path / "png/val").rglob("*.png"))
    assert (len(train), len(val)) == (4, 2)


def test_images_of_one_name_get_their_ids(output, monkeypatch):
    labels = PseudoLabels(str(output))
    monkeypatch.setattr(png, "_plain_name", lambda entry, base: "Same.PNG")
    names = png.file_names(labels)
    assert len(set(names)) == 6


def test_a_resumed_export_writes_only_what_is_missing(output, tmp_path):
    labels = PseudoLabels(str(output))
    png.export(labels, str(tmp_path / "png"))
    shutil.rmtree(tmp_path / "png/patient1")
    untouched = tmp_path / "png/patient0/view0.png"
    before = untouched.stat().st_mtime_ns
    png.export(labels, str(tmp_path / "png"))
    assert len(list((tmp_path / "png").rglob("*.png"))) == 6
    assert untouched.stat().st_mtime_ns == before
