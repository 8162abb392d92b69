"""CVAT: its XML and ZIP, datumaro as a reader, and files that are refused."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from tests.unit.review.mixed import SHAPE, label_maps, refused, run


def test_a_zip_of_cvat_is_imported(mixed, tmp_path):
    run("export", "cvat", mixed, tmp_path / "cvat")
    file = tmp_path / "task.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(tmp_path / "cvat/annotations.xml", "annotations.xml")
    assert "30 undecided" in run("import-review", file, mixed)
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(tmp_path / "cvat/annotations.xml", "other.xml")
    assert "it holds no annotations.xml" in refused("import-review", file, mixed)


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
    output = refused("import-review", file, mixed)
    assert str(file) in output
    assert message in output
    assert not (mixed / "reviews").exists()
