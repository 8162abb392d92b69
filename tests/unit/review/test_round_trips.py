"""Thirty images go to each tool and come back with a scripted correction, pixel by pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Reviews
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify_reviews import check_reviews
from tests.unit.review.mixed import label_maps, run
from tests.unit.review.people import (
    ACCEPTED,
    ADDED,
    CHANGED,
    ERASED,
    PEOPLE,
    REJECTED,
    corrected,
)


@pytest.mark.parametrize("tool", PEOPLE)
def test_corrections_come_back_pixel_by_pixel(mixed, tmp_path, tool):
    before = label_maps(mixed)
    assert len(before) == 30
    exported = tmp_path / tool
    run("export", tool, mixed, exported)
    names = {file.name for file in exported.rglob("*")}
    assert not [name for name in names if "MEIER" in name]
    imported = PEOPLE[tool](exported, before)
    message = run("import-review", imported, mixed)
    assert message == "3 corrected, 1 accepted, 1 rejected, 25 undecided\n"
    check(mixed, before)
    assert run("import-review", imported, mixed) == message  # the same again
    check(mixed, before)


def check(output, before):
    """Check the output after the scripted correction, given the label maps of before."""
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
    decided = Reviews.of(opened).decisions
    assert set(decided) == {ids[i] for i in (REJECTED, CHANGED, ADDED, ERASED, ACCEPTED)}
    verdicts = {
        image_id: {i: one.verdict for one in of_image for i in one.classes or (1, 2)}
        for image_id, of_image in decided.items()
    }
    assert verdicts[ids[REJECTED]] == {1: "rejected", 2: "rejected"}
    assert verdicts[ids[CHANGED]][1] == "corrected"
    assert verdicts[ids[ADDED]][2] == "corrected"
    assert verdicts[ids[ACCEPTED]][1] == "accepted"


@pytest.mark.parametrize("tool", PEOPLE)
def test_what_nobody_touched_stays_undecided(mixed, tmp_path, tool):
    run("export", tool, mixed, tmp_path / tool)
    file = {"cvat": "annotations.xml", "label-studio": "tasks.json"}.get(tool, "")
    assert "30 undecided" in run("import-review", tmp_path / tool / file, mixed)
    assert not (mixed / "reviews").exists()


@pytest.mark.parametrize("tool", ["labelme", "xanylabeling", "cvat"])
def test_images_are_linked_unless_copies_are_asked_for(mixed, tmp_path, tool):
    run("export", tool, mixed, tmp_path / "linked")
    run("export", tool, mixed, tmp_path / "copied", "--copy")
    for folder, expected in (("linked", 10), ("copied", 0)):
        images = [
            file for file in (tmp_path / folder).rglob("*.png") if file.parent.name != "masks"
        ]
        links = [file for file in images if file.is_symlink()]
        assert (len(images), len(links)) == (30, expected)
        assert all(cv2.imread(str(file)) is not None for file in images)
    assert all(file.resolve().parent == tmp_path / "images" for file in links)
    # The same export again finds what it has written.
    assert "30 images" in run("export", tool, mixed, tmp_path / "linked")


def test_an_image_of_16_bits_is_written_with_8(mixed, tmp_path):
    deep = tmp_path / "images/view4.png"
    picture = cv2.imread(str(deep), cv2.IMREAD_GRAYSCALE)
    assert cv2.imwrite(str(deep), picture.astype(np.uint16) * 16)
    run("export", "labelme", mixed, tmp_path / "labelme")
    (file,) = (tmp_path / "labelme").glob("view4-*.png")
    assert not file.is_symlink()
    assert cv2.imread(str(file), cv2.IMREAD_UNCHANGED).dtype == np.uint8
