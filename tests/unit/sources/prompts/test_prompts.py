"""Boxes that are given: how each form is read, and which image they are of."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.schema import ImageRef
from salip_ray.sources.prompts import Prompts, boxes_in_image
from tests.unit.sources.prompts.prompt_files import CLASSES, LINE, SIZE, coco, opened

BOXES = {"a": [("lungs", (10, 20, 59, 99)), ("heart", (100, 5, 130, 119))], "b": []}


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
    prompts = opened(FORMS[form](tmp_path), "/in/a.png", "/in/b.png")
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
    path = table(tmp_path, {"image": "v.nii", "slice": 4, **CORNERS})
    prompts = opened(path, "/in/v.nii.gz", index=4, classes=CLASSES[:1])
    assert len(prompts.find(ImageRef("/in/v.nii.gz", 4))) == 1
    assert prompts.find(ImageRef("/in/v.nii.gz", 3)) == ()


def test_a_stem_of_several_images_is_ambiguous_but_a_whole_path_is_not(tmp_path):
    rows = [{"image": "a.png", **CORNERS}, {"image": "/in/2/a.png", **CORNERS}]
    uris = ["/in/1/a.png", "/in/2/a.png"]
    prompts = opened(table(tmp_path, *rows), *uris, classes=CLASSES[:1])
    assert len(prompts.find(ImageRef("/in/2/a.png"))) == 1
    with pytest.raises(ImageError, match="2 images have the name of its prompts: list whole"):
        prompts.find(ImageRef("/in/1/a.png"))


def test_prompts_of_no_image_are_named(tmp_path):
    rows = [{"image": name, "slice": 3, **CORNERS} for name in ("a.nii", "lost.nii")]
    path = table(tmp_path, *rows, {**rows[0], "slice": 9})
    assert opened(path, "/in/a.nii", index=3, classes=CLASSES[:1]).unused == (
        *("a.nii, slice 9", "lost.nii, slice 3"),
    )
    with pytest.raises(
        InputError, match=r"no image of the input has a prompt .* of a.nii, slice 3"
    ):
        opened(path, "/in/a.nii", classes=CLASSES[:1])


@pytest.mark.parametrize(
    ("names", "uris", "boxes"),
    [
        (["x/a.png", "y/a.png"], ["/in/x/a.png"], {"/in/x/a.png": 1}),
        (["x/a.png", "y/a.png"], ["/in/y/a.jpg", "/in/x/a.jpg"], {"/in/x/a.jpg": 1}),
        (["labels/x/a", "labels/y/a"], ["/images/y/a.png"], {"/images/y/a.png": 2}),
        (["old/a.png"], ["/flat/a.tif"], {"/flat/a.tif": 1}),
        (["a.jpg"], ["/in/a.png", "/in/a.jpg"], {"/in/a.jpg": 1, "/in/a.png": None}),
        (["x\\a.png"], ["/in/x/a.png", "/in/y/a.png"], {"/in/x/a.png": 1, "/in/y/a.png": None}),
        (["a\u0308.png"], ["/in/\u00e4.png"], {"/in/\u00e4.png": 1}),
        (["x/a.png"], ["zip://x/a.png::/in/z.zip"], {"zip://x/a.png::/in/z.zip": 1}),
        (["/in/x/../a.png"], ["/in/a.png", "/in/b/a.png"], {"/in/a.png": 1, "/in/b/a.png": None}),
    ],
)
def test_an_image_has_the_boxes_of_the_name_with_the_most_folders_in_common(
    tmp_path, names, uris, boxes
):
    rows = [{"image": name, **CORNERS, "x0": n} for n, name in enumerate(names, start=1)]
    prompts = opened(table(tmp_path, *rows), *uris, classes=CLASSES[:1])
    for uri, first in boxes.items():
        given = prompts.find(ImageRef(uri))
        assert [box.values[0] for box in given] == ([] if first is None else [first])


def test_an_image_that_two_names_may_mean_is_ambiguous(tmp_path):
    rows = [{"image": name, **CORNERS} for name in ("x/a.png", "y/a.png")]
    prompts = opened(table(tmp_path, *rows), "/flat/a.png", classes=CLASSES[:1])
    with pytest.raises(ImageError, match="it may be 2 images of these prompts: list whole"):
        prompts.find(ImageRef("/flat/a.png"))


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
    prompts = opened(table(tmp_path, row), "a.png", classes=CLASSES[:1])
    with pytest.raises(ImageError, match=rf"prompt 1 \(lungs: .*\) {problem}"):
        boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)


def test_a_box_across_the_border_is_cut(tmp_path):
    row = {"image": "a", "x0": -4, "y0": 100, "x1": 30, "y1": 140}
    prompts = opened(table(tmp_path, row), "a.png", classes=CLASSES[:1])
    ((_, box),) = boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)
    assert box == (0, 100, 30, 119)


@pytest.mark.parametrize(
    ("rows", "classes", "problem"),
    [
        ([{"image": "a", **CORNERS, "label": "liver"}], 2, "have the class 'liver', but the task"),
        ([{"image": "a", **CORNERS}], 2, "have a prompt without a class"),
        ([{"image": "a", "x0": 1}], 1, "need the columns image, and x0, y0, x1, y1"),
        ([{"image": "", **CORNERS}], 1, "row 1 of prompts .* has no image"),
        ([{"image": "a", **CORNERS, "x0": None}], 1, "row 1 of prompts .* has no box"),
        ([{"image": "a", **CORNERS, "slice": -1}], 1, "row 1 of prompts .* has the slice -1"),
        ([{"image": "a", **CORNERS, "slice": "s3"}], 1, "has the slice 's3': count slices from 0"),
        ([{"image": "a", "x0": 0.1, "y0": 0, "x1": 0.5, "y1": 1}], 1, "give pixels"),
    ],
)
def test_problems_name_what_to_change(tmp_path, rows, classes, problem):
    with pytest.raises(InputError, match=problem):
        Prompts.open(table(tmp_path, *rows), CLASSES[:classes])


def test_files_that_hold_no_boxes_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "categories": [], "annotations": [{}]}')
    with pytest.raises(InputError, match="no COCO file: annotation 1 has no usable image_id"):
        Prompts.open(str(tmp_path / "a.json"), CLASSES)
    with pytest.raises(InputError, match="do not exist: check the path"):
        Prompts.open(str(tmp_path / "no.csv"), CLASSES)
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text("0 .5 .5")
    with pytest.raises(InputError, match=r"line 1 of a.txt in prompts .* is no box of YOLO"):
        Prompts.open(str(tmp_path / "yolo"), CLASSES)


def test_a_folder_of_masks_is_read_as_references_are(tmp_path):
    Pil.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "a.png")
    prompts = opened(tmp_path, "/in/a.png")
    assert prompts.masks is not None
    assert prompts.masks.find(ImageRef("/in/a.png")) is not None
    with pytest.raises(InputError, match="no image of the input has a prompt"):
        opened(tmp_path, "/in/b.png")


def test_a_mask_edited_in_place_changes_the_digest(tmp_path):
    path = tmp_path / "masks" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"one")
    (tmp_path / "index.csv").write_text("image,mask\na.png,a.png\nlost.png,lost.png\n")
    folder, index = str(path.parent), str(tmp_path / "index.csv")
    before = [Prompts.open(where, CLASSES).sha256 for where in (folder, index)]
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = [Prompts.open(where, CLASSES).sha256 for where in (folder, index)]
    path.write_bytes(b"one")
    again = [Prompts.open(where, CLASSES).sha256 for where in (folder, index)]
    assert before == again
    assert before[0] != changed[0]
    assert before[1] != changed[1]


def test_boxes_of_an_image_of_another_size_are_refused(tmp_path):
    prompts = opened(coco(tmp_path, LINE), "a.png")
    with pytest.raises(ImageError, match="of an image of 160 x 120 pixels, but it has 80 x 60"):
        boxes_in_image(prompts.find(ImageRef("a.png")), (60, 80))


def test_more_prompts_than_fit_into_memory_are_refused(tmp_path):
    given = opened(coco(tmp_path, *[LINE] * 8), "a.png").find(ImageRef("a.png"))
    limits = [ImageConfig(max_bytes=8 * 120 * 160 - less) for less in (0, 1)]
    assert len(boxes_in_image(given, SIZE, limits[0])) == 8
    with pytest.raises(ImageError, match=r"8 prompts for 160 x 120 .* above image\.max_bytes"):
        boxes_in_image(given, SIZE, limits[1])


HEAD, ROW = "image,x0,y0,x1,y1,label\n", "a.png,1,2.5,3,4,lungs\n"


@pytest.mark.parametrize(
    "data",
    [
        (HEAD + ROW).encode("utf-16"),
        (HEAD + ROW).encode("utf-8-sig"),
        (HEAD + ROW).replace(",", ";").encode(),
        (HEAD + ROW).replace(",", ";").replace(".5", ",5").encode(),
        (HEAD + ROW).replace(",", "\t").encode(),
        (HEAD.upper() + ROW).replace(",", ", ").encode(),
        (HEAD + ROW + "b.png,,,,,\nc.png,NaN,NaN,NaN,NaN,\n").encode(),  # without a box
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, data):
    (tmp_path / "boxes.csv").write_bytes(data)
    prompts = opened(tmp_path / "boxes.csv", "a.png")
    given = prompts.find(ImageRef("a.png"))
    assert boxes_in_image(given, SIZE) == [("lungs", (1, 2.5, 3, 4))]
    assert prompts.unused == ()


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("b.csv", (HEAD + ROW).replace("a.png", "\u00e4").encode("latin-1"), "are not UTF-8"),
        ("b.csv", b"image,x0,y0,x1,y1,x0\na,1,2,3,4,5\n", "have the column 'x0' twice"),
        ("b.json", b"[]", "but a list"),
        ("b.json", b"\xff\xff", "are not UTF-8"),
        ("b.json", b"[" * 100_000, "no COCO file"),
        ("b.xlsx", b"PK", "are no file of boxes or points: give .json"),
        ("empty/notes.md", b"", "hold neither text files of YOLO nor masks"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, name, data, problem):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(InputError, match=problem):
        Prompts.open(str(path if path.parent == tmp_path else path.parent), CLASSES)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "boxes.csv")
    (tmp_path / "yolo").mkdir()
    os.mkfifo(tmp_path / "yolo" / "a.txt")
    with pytest.raises(InputError, match="is a FIFO, not a regular file"):
        Prompts.open(str(tmp_path / "yolo"), CLASSES)
    with pytest.raises(InputError, match="is a FIFO, not a regular file"):
        Prompts.open(str(tmp_path / "boxes.csv"), CLASSES)


# -------------------------------------------------------------------------------------- points
