"""Boxes that are given: how each form is read, and which image they are of."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from salip_ray.config import load_config
from salip_ray.errors import ImageError, InputError
from salip_ray.schema import ImageRef
from salip_ray.sources.prompts import Prompts, boxes_in_image

SIZE = (120, 160)  # height, width
BOXES = {"a": [("lungs", (10, 20, 59, 99)), ("heart", (100, 5, 130, 119))], "b": []}
CLASSES = load_config("chest").task.classes


def as_coco(folder):
    path = folder / "boxes.json"
    annotations = [
        {
            "image_id": 7,
            "category_id": {"lungs": 3, "heart": 9}[label],
            "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
        }
        for label, (x0, y0, x1, y1) in BOXES["a"]
    ]
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}]
    categories = [{"id": 3, "name": "lungs"}, {"id": 9, "name": "heart"}]
    path.write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations})
    )
    return path


def as_table(folder, kind, sides):
    rows = [
        {"image": "a.png", "label": label, "x": x0, "y": y0, "width": x1 - x0 + 1}
        | {"height": y1 - y0 + 1}
        if sides
        else {"image": "a.png", "label": label, "x0": x0, "y0": y0, "x1": x1, "y1": y1}
        for label, (x0, y0, x1, y1) in BOXES["a"]
    ]
    path, table = folder / f"boxes.{kind}", pa.Table.from_pylist(rows)
    pq.write_table(table, path) if kind == "parquet" else pyarrow.csv.write_csv(table, path)
    return path


def as_yolo(folder):
    (folder / "labels").mkdir()
    (folder / "classes.txt").write_text("heart\nlungs\n")
    lines = []
    height, width = SIZE
    for label, (x0, y0, x1, y1) in BOXES["a"]:
        left, top, right, bottom = x0 / width, y0 / height, (x1 + 1) / width, (y1 + 1) / height
        box = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        numbers = " ".join(f"{value:.6f}" for value in box)
        lines.append(f"{['heart', 'lungs'].index(label)} {numbers}")
    (folder / "labels" / "a.txt").write_text("\n".join(lines))
    (folder / "labels" / "b.txt").write_text("")
    return folder / "labels"


def as_outlines(folder):
    path = as_yolo(folder)
    height, width = SIZE
    lines = []
    for label, (x0, y0, x1, y1) in BOXES["a"]:
        left, top, right, bottom = x0 / width, y0 / height, (x1 + 1) / width, (y1 + 1) / height
        lines.append(
            f"{['heart', 'lungs'].index(label)} {left} {top} {right} {top} {right} {bottom}"
        )
    (path / "a.txt").write_text("\n".join(lines))
    return path


FORMS = {
    "coco": as_coco,
    "csv": lambda folder: as_table(folder, "csv", sides=False),
    "csv of sides": lambda folder: as_table(folder, "csv", sides=True),
    "parquet": lambda folder: as_table(folder, "parquet", sides=False),
    "yolo": as_yolo,
    "yolo outlines": as_outlines,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_boxes(tmp_path, form):
    prompts = Prompts.open(str(FORMS[form](tmp_path)), CLASSES)
    boxes = boxes_in_image(prompts.find(ImageRef("/in/a.png")), SIZE)
    assert boxes == BOXES["a"]
    assert prompts.find(ImageRef("/in/b.png")) == ()
    assert prompts.find(ImageRef("/in/a.nii", 3)) == ()
    again = Prompts.open(str(tmp_path / prompts.location.rpartition("/")[2]), CLASSES)
    assert again.sha256 == prompts.sha256


def table(folder, *rows):
    path = folder / "boxes.csv"
    pyarrow.csv.write_csv(pa.Table.from_pylist(list(rows)), path)
    return str(path)


CORNERS = {"x0": 1, "y0": 2, "x1": 5, "y1": 6}


def test_a_changed_box_changes_the_digest(tmp_path):
    first = Prompts.open(table(tmp_path, {"image": "a", **CORNERS}), CLASSES[:1])
    second = Prompts.open(table(tmp_path, {"image": "a", **CORNERS, "x1": 7}), CLASSES[:1])
    assert first.sha256 != second.sha256


def test_a_slice_is_named_by_its_index(tmp_path):
    prompts = Prompts.open(table(tmp_path, {"image": "v.nii", "slice": 4, **CORNERS}), CLASSES[:1])
    assert len(prompts.find(ImageRef("/in/v.nii.gz", 4))) == 1
    assert prompts.find(ImageRef("/in/v.nii.gz", 3)) == ()


def test_a_stem_of_several_images_is_ambiguous_but_a_whole_path_is_not(tmp_path):
    rows = [{"image": "a.png", **CORNERS}, {"image": "/in/2/a.png", **CORNERS}]
    uris = ["/in/1/a.png", "/in/2/a.png"]
    prompts = Prompts.open(table(tmp_path, *rows), CLASSES[:1]).among(uris)
    assert len(prompts.find(ImageRef("/in/2/a.png"))) == 1
    with pytest.raises(ImageError, match="2 images have the stem 'a'"):
        prompts.find(ImageRef("/in/1/a.png"))


def test_unknown_images_are_named(tmp_path):
    rows = [{"image": name, **CORNERS} for name in ("a.png", "lost.png")]
    prompts = Prompts.open(table(tmp_path, *rows), CLASSES[:1])
    assert prompts.unknown(["/in/a.png"]) == ["lost"]


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((200, 5, 220, 9), "lies outside of the image of 160 x 120 pixels"),
        ((9, 5, 3, 9), "is no box"),
        ((float("inf"), 5, float("inf"), 9), "is no box"),
    ],
)
def test_a_box_that_is_not_on_the_image_is_refused(tmp_path, box, problem):
    row = {"image": "a", **dict(zip(CORNERS, map(float, box), strict=True))}
    prompts = Prompts.open(table(tmp_path, row), CLASSES[:1])
    with pytest.raises(ImageError, match=rf"prompt 1 \(lungs: .*\) {problem}"):
        boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)


def test_a_box_across_the_border_is_cut(tmp_path):
    row = {"image": "a", "x0": -4, "y0": 100, "x1": 30, "y1": 140}
    prompts = Prompts.open(table(tmp_path, row), CLASSES[:1])
    ((_, box),) = boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)
    assert box == (0, 100, 30, 119)


@pytest.mark.parametrize(
    ("rows", "classes", "problem"),
    [
        ([{"image": "a", **CORNERS, "label": "liver"}], 2, "have the class 'liver', but the task"),
        ([{"image": "a", **CORNERS}], 2, "have a box without a class"),
        ([{"image": "a", "x0": 1}], 1, "need the columns image, and x0, y0, x1, y1"),
        ([{"image": "", **CORNERS}], 1, "row 1 of prompts .* has no image"),
        ([{"image": "a", **CORNERS, "x0": None}], 1, "row 1 of prompts .* has no box"),
    ],
)
def test_problems_name_what_to_change(tmp_path, rows, classes, problem):
    with pytest.raises(InputError, match=problem):
        Prompts.open(table(tmp_path, *rows), CLASSES[:classes])


def test_files_that_hold_no_boxes_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "categories": [], "annotations": [{}]}')
    with pytest.raises(InputError, match="no COCO file: annotation 1 cannot be used"):
        Prompts.open(str(tmp_path / "a.json"), CLASSES)
    with pytest.raises(InputError, match="do not exist: check the path"):
        Prompts.open(str(tmp_path / "no.csv"), CLASSES)
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text("0 .5 .5")
    with pytest.raises(InputError, match=r"line 1 of a.txt in prompts .* is no box of YOLO"):
        Prompts.open(str(tmp_path / "yolo"), CLASSES)


def test_a_folder_of_masks_is_read_as_references_are(tmp_path):
    Pil.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "a.png")
    prompts = Prompts.open(str(tmp_path), CLASSES).among(["/in/a.png"])
    assert prompts.masks is not None
    assert prompts.masks.find(ImageRef("/in/a.png")) is not None
