"""Prompts of COCO files and YOLO folders: boxes, outlines, keypoints."""

from __future__ import annotations

import numpy as np
import pycocotools.mask
import pytest

from salip_ray.errors import ImageError, InputError
from salip_ray.schema import ImageRef, Points
from salip_ray.sources.prompts import Prompts, boxes_in_image
from tests.unit.sources.prompts.prompt_files import CLASSES, LINE, SIZE, coco, opened

IDS = [{"id": 1, "file_name": "a.png", "name": "lungs"}] * 2


@pytest.mark.parametrize(
    ("annotation", "more", "problem"),
    [
        ({"bbox": [1, 2, 3]}, {}, "annotation 1 has no usable bbox: .* found \\[1, 2, 3\\]"),
        ({"bbox": [10**400, 2, 3, 4]}, {}, "annotation 1 has no usable bbox"),
        ({}, {}, "annotation 1 has neither a bbox nor a segmentation"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, {}, "a polygon that is no list of x, y"),
        (
            {"segmentation": {"size": [9, 9], "counts": [81]}},
            {},
            "annotation 1: its segmentation is of",
        ),
        ({**LINE, "category_id": 7}, {}, "the category_id 7, which is no category's id"),
        ({**LINE, "image_id": "1"}, {}, "the image_id '1', which is no image's id"),
        ({**LINE, "slice": True}, {}, "has the slice True"),
        (LINE, {"images": IDS}, "entry 2 of images has the id 1 of an earlier one"),
        (LINE, {"categories": IDS}, "entry 2 of categories has the id 1 of an earlier one"),
        (LINE, {"annotations": None}, "it has no list 'annotations'"),
        ({"bbox": [0.1, 0.1, 0.5, 0.5]}, {}, "are shares of the image: give pixels"),
    ],
)
def test_problems_of_coco_name_the_annotation(tmp_path, annotation, more, problem):
    with pytest.raises(InputError, match=problem):
        Prompts.open(str(coco(tmp_path, annotation, **more)), CLASSES)


def test_outlines_of_coco_have_the_boxes_of_their_pixels(tmp_path):
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[20:30, 10:15] = 1
    packed = pycocotools.mask.encode(mask)
    rle = {"size": [*SIZE], "counts": packed["counts"].decode()}
    runs = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.ravel("F"), 2])))
    polygons = [[10, 20, 15, 20, 15, 30], [10, 20, 10, 30, 15, 30]]
    items = [rle, {"size": [*SIZE], "counts": runs.tolist()}, polygons]
    prompts = opened(coco(tmp_path, *({"segmentation": item} for item in items)), "a.png")
    boxes = boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)
    assert boxes == [("lungs", (10, 20, 14, 29))] * 3


@pytest.mark.parametrize("line", ["0 .5 .5 0 .1", "0 .5 .5 -.2 -.2", "0 nan .5 .1 .1"])
def test_a_box_of_yolo_without_an_area_is_refused(tmp_path, line):
    (tmp_path / "a.txt").write_text(line)
    given = opened(tmp_path, "a.png").find(ImageRef("a.png"))
    with pytest.raises(ImageError, match="is no box"):
        boxes_in_image(given, SIZE)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 80 60 20 20", "shares of the image are needed, not pixels"),
        ("-1 .5 .5 .1 .1", "its class must be 0, 1, 2"),
        ("0.5 .5 .5 .1 .1", "its class must be 0, 1, 2"),
        ("7 .5 .5 .1 .1", "its class has no name: 2 have one"),
        ("0 .1 .1 .2 .2 .3 .3 .9", "or x, y of 3 points or more"),
        ("0,.5,.5,.1,.1", "numbers are needed"),
    ],
)
def test_problems_of_yolo_name_the_line(tmp_path, line, problem):
    (tmp_path / "classes.txt").write_text("lungs\nheart\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text(f"0 .5 .5 .1 .1\n{line}\n")
    with pytest.raises(InputError, match=f"line 2 of sub/a.txt in prompts .*{problem}"):
        Prompts.open(str(tmp_path), CLASSES)


@pytest.mark.parametrize(
    "text", ["names: [lungs", "names: lungs", "hello", "names: {a: lungs}", "names: !!python/x y"]
)
def test_a_list_of_names_that_cannot_be_used_is_refused(tmp_path, text):
    (tmp_path / "a.txt").write_text("0 .5 .5 .1 .1")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=r"data.yaml has no usable list of names of classes"):
        Prompts.open(str(tmp_path), CLASSES)


def test_of_poses_the_box_is_taken_and_hidden_files_are_not_read(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [lungs]\nkpt_shape: [1, 3]")
    (tmp_path / "a.txt").write_text("0 .5 .5 .2 .2 .9 .9 2")
    (tmp_path / "._a.txt").write_bytes(b"\0\xff")
    boxes = boxes_in_image(opened(tmp_path, "a.png").find(ImageRef("a.png")), SIZE)
    assert boxes == [("lungs", (64, 48, 95, 71))]


def test_keypoints_of_coco_are_points_if_there_is_no_box(tmp_path):
    file = coco(tmp_path, {"keypoints": [1, 2, 2, 0, 0, 0, 5, 6, 1]})
    (((label, points),)) = boxes_in_image(opened(file, "a.png").find(ImageRef("a.png")), SIZE)
    assert (label, points) == ("lungs", Points(((1, 2), (5, 6))))
    file = coco(tmp_path, {**LINE, "keypoints": [1, 2, 2]})
    prompts = opened(file, "a.png")
    assert not prompts.has_points
    assert boxes_in_image(prompts.find(ImageRef("a.png")), SIZE) == [("lungs", (10, 20, 14, 24))]


@pytest.mark.parametrize("keypoints", [[1, 2], [1, 2, 0], ["a", 2, 1], "abc"])
def test_keypoints_that_cannot_be_used_name_the_annotation(tmp_path, keypoints):
    with pytest.raises(InputError, match="annotation 1 has no usable keypoints"):
        opened(coco(tmp_path, {"keypoints": keypoints}), "a.png")
