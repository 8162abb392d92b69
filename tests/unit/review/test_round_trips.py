"""Thirty images go to each tool and come back with a scripted correction, pixel by pixel."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from itertools import groupby
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from PIL import Image as Pil
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Reviews
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify_reviews import check_reviews
from salip_ray.review.tools import brush_rle
from tests.unit.review.mixed import SHAPE, write_mixed

#: What the script does with an image, by its index in the order of the export.
REJECTED, CHANGED, ADDED, ERASED, ACCEPTED = 3, 7, 12, 22, 25


@pytest.fixture
def mixed(tmp_path):
    return write_mixed(tmp_path)


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def corrected(before, number):
    """Return the label map that a person leaves of an image."""
    after = before.copy()
    if number == CHANGED:
        after[20:24, 5:20] = 1
        after[16, 12] = 0  # a hole of one pixel
    elif number == ADDED:
        assert 2 not in before
        after[30:34, 30:44] = 2
    elif number == ERASED:
        after[after == 2] = 0
        after[0, 0] = 255
    return after


def check(output, before, imported):
    """Check what has come back, given the label maps of before."""
    assert "3 corrected, 1 accepted, 1 rejected" in imported
    opened = LabelOutput.open(str(output))
    ids = list(before)
    assert list(check_reviews(opened, ids)) == []
    labels = PseudoLabels(str(output))
    after = {entry.image_id: labels.label_map(entry) for entry in labels.entries}
    assert set(ids) - set(after) == {ids[REJECTED]}
    for number, (image_id, label_map) in enumerate(before.items()):
        if number != REJECTED:
            np.testing.assert_array_equal(after[image_id], corrected(label_map, number))
    by_id = {entry.image_id: entry for entry in labels.entries}
    assert by_id[ids[ADDED]].confidences == {"lung": 1.0, "heart": 1.0}
    assert by_id[ids[ERASED]].confidences == {"lung": 1.0}
    assert by_id[ids[ACCEPTED]].confidence == 1.0
    assert by_id[ids[0]].confidence < 1
    verdicts = {
        image_id: {(one.verdict, one.classes) for one in decisions}
        for image_id, decisions in Reviews.of(opened).decisions.items()
    }
    assert verdicts[ids[ADDED]] == {("corrected", (2,)), ("accepted", (1,))}
    assert len(verdicts) == 5


def label_maps(output):
    labels = PseudoLabels(str(output))
    return {entry.image_id: labels.label_map(entry) for entry in labels.entries}


# ---------------------------------------------------------------------------------- Label Studio


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=70)))
def test_a_brush_mask_survives(mask):
    np.testing.assert_array_equal(brush_rle.decode(brush_rle.encode(mask), *mask.shape), mask)


@pytest.mark.parametrize("side", [1, 3, 200])
def test_label_studio_reads_and_writes_the_same_brush_masks(side):
    brush = pytest.importorskip(
        "label_studio_sdk.converter.brush", reason="pip install label-studio-sdk"
    )
    mask = np.random.default_rng(0).random((side, side + 40)) < 0.3
    mask[:, 30:] = False
    values = brush.decode_rle(brush_rle.encode(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(values == 255, np.repeat(mask[..., None], 4, 2))
    theirs = brush.mask2rle(mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(brush_rle.decode(list(theirs), *mask.shape), mask)


@pytest.mark.parametrize("data", [[], [0] * 3, brush_rle.encode(np.ones((5, 5), np.bool_))[:-2]])
def test_a_damaged_brush_mask_is_refused(data):
    with pytest.raises(ValueError, match="brush mask"):
        brush_rle.decode(data, 5, 5)


def in_label_studio(tasks, before):
    """Annotate tasks as a person does, and return the JSON export."""
    for number, task in enumerate(tasks):
        result = task["predictions"][0]["result"]
        if number not in {REJECTED, CHANGED, ADDED, ERASED, ACCEPTED}:
            task["annotations"] = []
            continue
        if number == REJECTED:
            choice = {"type": "choices", "from_name": "decision", "to_name": "image"}
            result = [*result, {**choice, "value": {"choices": ["reject"]}}]
        elif number != ACCEPTED:
            after = corrected(before[task["data"]["salip_image_id"]], number)
            names = {1: "lung", 2: "heart", 255: "pixels to ignore"}
            result = [
                {
                    "type": "brushlabels",
                    "original_width": SHAPE[1],
                    "original_height": SHAPE[0],
                    "value": {
                        "format": "rle",
                        "rle": brush_rle.encode(after == value),
                        "brushlabels": [names[value]],
                    },
                }
                for value in np.unique(after[after > 0]).tolist()
            ]
        old = {"result": [], "updated_at": "2026-01-01"}
        task["annotations"] = [old, {"result": result, "updated_at": "2026-01-02"}]
    return tasks


def test_label_studio_and_back(mixed, tmp_path):
    before = label_maps(mixed)
    dest = tmp_path / "ls"
    run("export", "label-studio", mixed, dest)
    tasks = json.loads((dest / "tasks.json").read_text())
    # PNGs stay where they are; DICOM files and slices are copied, without their names.
    assert tasks[0]["data"]["image"].endswith("/images/view0.png")
    assert str(tmp_path / "images").lstrip("/") in tasks[0]["data"]["image"]
    assert len(list((dest / "images").iterdir())) == 20
    assert "MEIER" not in (dest / "tasks.json").read_text()
    assert tasks[0]["predictions"][0]["score"] == pytest.approx(0.5)
    assert tasks[1]["predictions"][0]["result"][1]["score"] == pytest.approx(0.9)
    export = tmp_path / "project-1.json"
    export.write_text(json.dumps(in_label_studio(tasks, before)))
    imported = run("import-review", export, mixed)
    assert "25 undecided" in imported
    check(mixed, before, imported)
    run("import-review", export, mixed)  # again
    check(mixed, before, imported)


def test_label_studio_accepts_the_configuration_and_the_predictions(mixed, tmp_path):
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="pip install label-studio-sdk"
    )
    run("export", "label-studio", mixed, tmp_path / "ls")
    label = interface.LabelInterface((tmp_path / "ls/config.xml").read_text())
    label.validate()
    for task in json.loads((tmp_path / "ls/tasks.json").read_text()):
        assert label.validate_prediction(task["predictions"][0], return_errors=True) == []


def test_label_studio_copies_images_if_asked(mixed, tmp_path):
    run("export", "label-studio", mixed, tmp_path / "ls", "--copy")
    assert len(list((tmp_path / "ls/images").iterdir())) == 30


# --------------------------------------------------------------------------------------- LabelMe


def in_labelme(folder, before):
    """Correct the files of a folder as a person does, with LabelMe's form of masks."""
    for file in folder.glob("*-*.json"):
        document = json.loads(file.read_text())
        number = list(before).index(document["salip_image_id"])
        document["flags"]["reject"] = number == REJECTED
        document["flags"]["accept"] = number in {CHANGED, ADDED, ERASED, ACCEPTED}
        if number in {CHANGED, ADDED, ERASED}:
            after = corrected(before[document["salip_image_id"]], number)
            names = {1: "lung", 2: "heart", 255: "pixels to ignore"}
            document["shapes"] = [
                {**shape_of(after == value), "label": names[value]}
                for value in np.unique(after[after > 0]).tolist()
            ]
        file.write_text(json.dumps(document))


def shape_of(mask):
    top, bottom = np.flatnonzero(mask.any(1))[[0, -1]].tolist()
    left, right = np.flatnonzero(mask.any(0))[[0, -1]].tolist()
    buffer = io.BytesIO()
    Pil.fromarray(mask[top : bottom + 1, left : right + 1]).save(buffer, "PNG")
    return {
        "points": [[float(left), float(top)], [float(right), float(bottom)]],
        "shape_type": "mask",
        "mask": base64.b64encode(buffer.getvalue()).decode(),
    }


def test_labelme_and_back(mixed, tmp_path):
    before = label_maps(mixed)
    folder = tmp_path / "labelme"
    run("export", "labelme", mixed, folder)
    names = [file.name for file in folder.rglob("*")]
    assert not [name for name in names if "MEIER" in name]
    assert len(list((folder / "images").iterdir())) == 30
    assert "30 undecided" in run("import-review", folder, mixed)
    in_labelme(folder, before)
    imported = run("import-review", folder, mixed)
    assert "25 undecided" in imported
    check(mixed, before, imported)


def test_labelme_opens_the_masks_and_saves_what_comes_back(mixed, tmp_path):
    labelme = pytest.importorskip("labelme", reason="pip install labelme")
    before = label_maps(mixed)
    folder = tmp_path / "labelme"
    run("export", "labelme", mixed, folder)
    documents = sorted(folder.glob("*-*.json"))
    assert len(documents) == 30
    for path in documents:
        file = labelme.LabelFile(str(path))
        label_map = before[file.other_data["salip_image_id"]]
        shapes = [{**shape, "other_data": None} for shape in file.shapes]
        drawn, _ = labelme.utils.shapes_to_label(SHAPE, shapes, {"lung": 1, "heart": 2})
        np.testing.assert_array_equal(drawn, label_map)
        image = cv2.imdecode(np.frombuffer(file.image_data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image.shape == SHAPE
        for shape in file.shapes:  # as the window of LabelMe saves them
            shape["mask"] = labelme.utils.img_arr_to_b64(shape["mask"].astype(np.uint8))
            shape.update(shape.pop("other_data"))
        flags = {**file.flags, "accept": True}
        rest = {"image_height": SHAPE[0], "image_width": SHAPE[1], "flags": flags}
        file.save(str(path), file.shapes, file.image_path, other_data=file.other_data, **rest)
    assert "0 corrected, 30 accepted" in run("import-review", folder, mixed)


# ------------------------------------------------------------------------------------------ CVAT


def in_cvat(file, before):
    """Correct annotations as a person does in CVAT, which saves masks in its own way."""
    root = ElementTree.parse(file).getroot()
    names = {1: "lung", 2: "heart", 255: "pixels to ignore"}
    for number, (image, label_map) in enumerate(
        zip(root.iter("image"), before.values(), strict=True)
    ):
        if number in {REJECTED, ACCEPTED, CHANGED, ADDED, ERASED}:
            tag = "reject" if number == REJECTED else "accept"
            ElementTree.SubElement(image, "tag", label=tag, source="manual")
        if number in {CHANGED, ADDED, ERASED}:
            for mask in image.findall("mask"):
                image.remove(mask)
            after = corrected(label_map, number)
            for value in np.unique(after[after > 0]).tolist():
                runs = [(key, len(list(group))) for key, group in groupby((after == value).ravel())]
                lengths = [0] * int(runs[0][0]) + [length for _, length in runs]
                box = {"left": "0", "top": "0", "width": str(SHAPE[1]), "height": str(SHAPE[0])}
                rle = ", ".join(map(str, lengths))
                ElementTree.SubElement(image, "mask", label=names[value], rle=rle, **box)
    ElementTree.ElementTree(root).write(file)


@pytest.mark.parametrize("zipped", [False, True])
def test_cvat_and_back(mixed, tmp_path, zipped):
    before = label_maps(mixed)
    run("export", "cvat", mixed, tmp_path / "cvat")
    file = tmp_path / "cvat/annotations.xml"
    assert "MEIER" not in file.read_text()
    assert len(list((tmp_path / "cvat/images").iterdir())) == 30
    assert "30 undecided" in run("import-review", file, mixed)
    in_cvat(file, before)
    if zipped:
        with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
            archive.write(file, "annotations.xml")
        file = tmp_path / "task.zip"
    imported = run("import-review", file, mixed)
    assert "25 undecided" in imported
    check(mixed, before, imported)


def test_datumaro_reads_the_masks_and_writes_what_comes_back(mixed, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="pip install datumaro")
    before = label_maps(mixed)
    run("export", "cvat", mixed, tmp_path / "cvat")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "cvat"), "cvat")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    by_prefix = {image_id[:16]: label_map for image_id, label_map in before.items()}
    items = list(dataset)
    assert len(items) == 30
    for item in items:
        drawn = np.zeros(SHAPE, np.uint8)
        for mask in item.annotations:
            drawn[mask.image.astype(bool)] = {"lung": 1, "heart": 2}[names[mask.label]]
        np.testing.assert_array_equal(drawn, by_prefix[item.id[-16:]])
        assert item.media.data.shape[:2] == SHAPE
    dataset.export(str(tmp_path / "again"), "cvat")
    (file,) = (tmp_path / "again").glob("*.xml")
    assert "0 corrected" in run("import-review", file, mixed)
    assert not (mixed / "reviews").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:200], "cannot be imported"),
        (lambda text: text.replace("view0-", "view0_"), "has no image view0_"),
        (
            lambda text: text.replace(">lung<", ">l<").replace(">heart<", ">h<"),
            "none of the classes",
        ),
        (lambda text: text.replace('label="lung"', 'label="liver"'), "the unknown label 'liver'"),
        (lambda text: text.replace("<mask", "<polygon"), "has a polygon: only masks"),
        (lambda text: text.replace('left="', 'left="9'), "does not fit image"),
        (lambda text: text.replace('rle="', 'rle="1, '), "does not fit image"),
        (lambda text: text.replace("rle=", "points="), "'rle' is missing"),
    ],
)
def test_a_wrong_file_of_cvat_is_refused_by_name(mixed, tmp_path, change, message):
    run("export", "cvat", mixed, tmp_path / "cvat")
    file = tmp_path / "cvat/annotations.xml"
    file.write_text(change(file.read_text()))
    done = CliRunner().invoke(app, ["import-review", str(file), str(mixed)])
    assert done.exit_code == 2
    assert str(file) in done.output
    assert message in done.output
    assert not (mixed / "reviews").exists()


# ---------------------------------------------------------------------------------- wrong files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("salip_image_id"), "without salip_image_id"),
        (lambda data: data.update(salip_output="0" * 16), "exported from another output than"),
        (lambda data: data.update(salip_image_id="f" * 32), f"has no image {'f' * 32}"),
        (lambda data: data.update(salip_classes={"lung": 9}), "names the classes"),
    ],
)
def test_a_wrong_export_of_label_studio_is_refused_by_name(mixed, tmp_path, change, message):
    run("export", "label-studio", mixed, tmp_path / "ls")
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())[:1]
    tasks[0]["annotations"] = tasks[0]["predictions"]
    change(tasks[0]["data"])
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(tasks))
    done = CliRunner().invoke(app, ["import-review", str(file), str(mixed)])
    assert done.exit_code == 2
    assert str(file) in done.output
    assert message in done.output
    assert not (mixed / "reviews").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["shapes"][0].update(label="liver"), "the label 'liver' is unknown"),
        (lambda d: d["shapes"][0].update(shape_type="polygon"), "only masks have every pixel"),
        (lambda d: d["shapes"][0].update(points=[[0, 0], [3, 3]]), "does not fit its box"),
        (lambda d: d["shapes"][0].update(mask="!"), "is damaged"),
        (lambda d: d.pop("shapes"), "'shapes' is missing"),
    ],
)
def test_a_wrong_file_of_labelme_is_refused_by_name(mixed, tmp_path, change, message):
    folder = tmp_path / "labelme"
    run("export", "labelme", mixed, folder)
    file = min(folder.glob("*-*.json"))
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    done = CliRunner().invoke(app, ["import-review", str(folder), str(mixed)])
    assert done.exit_code == 2
    assert str(file) in done.output
    assert message in done.output
    assert not (mixed / "reviews").exists()
