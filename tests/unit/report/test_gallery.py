"""What the gallery says about references that it cannot draw."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from salip_ray import load_config
from salip_ray.report.gallery import reference_layers
from salip_ray.schema import ImageRef
from salip_ray.sources.references import References

ROW = {"uri": "/a/1.png", "height": 8, "width": 8}


@pytest.fixture
def labels():
    config = load_config("lungs")
    return SimpleNamespace(
        image_ref=lambda row: ImageRef(row["uri"]),
        classes=config.task.classes,
        image_config=config.image,
    )


def references(tmp_path, shape, images=("/a/1.png",)):
    cv2.imwrite(str(tmp_path / "1.png"), np.full(shape, 255, np.uint8))
    return References.open(str(tmp_path)).among(images)


def test_fitting_reference_is_drawn_without_a_note(labels, tmp_path):
    layers, note = reference_layers(labels, ROW, references(tmp_path, (8, 8)))
    assert [layer.key for layer in layers] == ["reference"]
    assert note == ""


def test_reference_that_several_images_could_have_is_not_drawn_and_the_note_says_why(
    labels, tmp_path
):
    shared = references(tmp_path, (8, 8), images=("/a/1.png", "/b/1.png"))
    layers, note = reference_layers(labels, ROW, shared)
    assert layers == []
    assert note.startswith("2 images have the name of one reference mask: list whole paths")


def test_reference_of_another_size_is_named(labels, tmp_path):
    layers, note = reference_layers(labels, ROW, references(tmp_path, (4, 6)))
    assert (layers, note) == ([], "has 4 x 6 pixels, not those of its image")


def test_broken_reference_is_named_unless_the_run_hid_names(labels, tmp_path):
    masks = references(tmp_path, (8, 8))
    (tmp_path / "1.png").write_bytes(b"no mask")
    _, note = reference_layers(labels, ROW, masks)
    assert "1.png" in note


def test_image_without_any_reference_has_no_note(labels, tmp_path):
    row = {**ROW, "uri": "/a/2.png"}
    assert reference_layers(labels, row, references(tmp_path, (8, 8))) == ([], "")
