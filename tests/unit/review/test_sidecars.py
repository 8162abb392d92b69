"""LabelMe and X-AnyLabeling: their own readers and writers, and files that are refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.unit.review.mixed import SHAPE, label_maps, refused, run


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


def test_xanylabeling_fills_the_polygons_and_saves_what_comes_back(mixed, tmp_path, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    files = pytest.importorskip(
        "anylabeling.views.labeling.label_file", reason="pip install x-anylabeling-cvhub"
    )
    from anylabeling.views.labeling.label_converter import LabelConverter

    before = label_maps(mixed)
    folder, mask = tmp_path / "xanylabeling", tmp_path / "mask.png"
    run("export", "xanylabeling", mixed, folder)
    documents = sorted(folder.glob("*-*.json"))
    assert len(documents) == 30
    colours = {"type": "grayscale", "colors": {"lung": 1, "heart": 2}}
    for path in documents:
        LabelConverter().custom_to_mask(str(path), str(mask), colours)
        file = files.LabelFile(str(path))
        label_map = before[file.other_data["salip_image_id"]]
        np.testing.assert_array_equal(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), label_map)
        assert all(0 < shape.score <= 1 for shape in file.shapes)
        file.save(
            str(path),
            [shape.to_dict() for shape in file.shapes],
            file.image_path,
            *SHAPE,
            other_data={**file.other_data, "checked": True},
            flags=file.flags,
        )
    assert "0 corrected, 30 accepted" in run("import-review", folder, mixed)


@pytest.mark.parametrize(("checked", "expected"), [(True, "accepted"), ("failed", "rejected")])
def test_the_marks_of_xanylabeling_decide(mixed, tmp_path, checked, expected):
    folder = tmp_path / "xanylabeling"
    run("export", "xanylabeling", mixed, folder)
    file = min(folder.glob("*-*.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "checked": checked}))
    assert f"1 {expected}" in run("import-review", folder, mixed)


def test_a_tool_finds_each_image_next_to_its_file(mixed, tmp_path):
    run("export", "labelme", mixed, tmp_path / "labelme")
    for file in (tmp_path / "labelme").glob("*-*.json"):
        image = json.loads(file.read_text())["imagePath"]
        assert image == f"{file.stem}.png"
        assert cv2.imread(str(file.with_name(image))).shape[:2] == SHAPE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["shapes"][0].update(label="liver"), "the label 'liver' is unknown"),
        (lambda d: d["shapes"][0].update(shape_type="circle"), "draw it as a mask or a polygon"),
        (lambda d: d["shapes"][0].update(shape_type="polygon", points=[[1]]), "a vertex that is"),
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
    output = refused("import-review", folder, mixed)
    assert str(file) in output
    assert message in output
    assert not (mixed / "reviews").exists()
