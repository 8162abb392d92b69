"""One palette PNG per image, with the same stem."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.datasets.exports import palette, png
from salip_ray.datasets.exports.cases import Split
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError, OutputError
from salip_ray.output.cells import pack_instance
from salip_ray.output.masks import decode_rle
from salip_ray.schema import Instance


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


def test_a_map_of_objects_agrees_with_the_label_map(output, tmp_path, monkeypatch):
    labels = PseudoLabels(str(output))
    entry = labels.entries[1]
    lung, heart = labels.masks(entry)
    top, bottom = decode_rle(lung["rle"]), decode_rle(lung["rle"])
    top[15:], bottom[:10] = False, False  # rows 10 to 15 are of both
    objects = [pack_instance(Instance(part)) for part in (top, bottom)]
    reader = type(labels.reader)
    cells = reader.masks
    monkeypatch.setattr(
        reader,
        "masks",
        lambda self, shown: [
            {**cell, "instances": objects if (shown, cell["class_id"]) == (entry, 1) else []}
            for cell in reversed(cells(self, shown))
        ],
    )
    assert png.export(labels, str(tmp_path / "png"), instances=True) == 6
    with Pil.open(tmp_path / "png/patient0/view1.png") as picture:
        numbers = np.array(picture)
    assert numbers.max() == 3
    np.testing.assert_array_equal(numbers == 1, top)
    np.testing.assert_array_equal(numbers == 2, bottom & ~top)
    np.testing.assert_array_equal(numbers == 3, decode_rle(heart["rle"]))
    with pytest.raises(OutputError):
        png.export(labels, str(tmp_path / "png"))


def test_more_objects_than_a_map_has_values_are_refused(output, tmp_path, monkeypatch):
    monkeypatch.setattr("salip_ray.datasets.samples._MOST_OBJECTS", 0)
    with pytest.raises(InputError, match="more than 0 objects, which a 16-bit map cannot hold"):
        png.export(PseudoLabels(str(output)), str(tmp_path / "png"), instances=True)


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
