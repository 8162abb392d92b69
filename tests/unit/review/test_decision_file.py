"""The file that a review page saves: what it decides, and what is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Reviews
from salip_ray.errors import InputError
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify_reviews import check_reviews
from salip_ray.review.decision_file import output_digest
from salip_ray.review.importing import import_file
from salip_ray.review.runs import pack


@pytest.fixture
def ids(thorax):
    return [entry.image_id for entry in PseudoLabels(str(thorax)).entries]


@pytest.fixture
def write(thorax, tmp_path):
    """Write a file of decisions; keyword arguments replace what is at its top."""

    def write_file(*images, **changes):
        content = {
            "format": "salip_ray review",
            "version": 1,
            "output": output_digest(LabelOutput.open(str(thorax))),
            "classes": {"lung": 1, "heart": 2},
            "images": list(images),
            **changes,
        }
        file = tmp_path / "thorax.review.json"
        file.write_text(json.dumps(content))
        return file

    return write_file


def correction(image_id, label_map, classes=(1,), **more):
    height, width = label_map.shape
    return {
        "image_id": image_id,
        "corrected": list(classes),
        "height": height,
        "width": width,
        "label_map": pack(label_map),
        **more,
    }


def test_decisions_on_single_classes_apply(write, thorax, ids, scene):
    _, lung, heart = scene(1)
    drawn = np.zeros(lung.shape, np.uint8)
    drawn[:4, :4] = 1
    drawn[30:, 40:] = 2  # of a class that was not corrected: it does not count
    file = write(
        correction(ids[1], drawn, rejected=[], reason="too large"),
        {"image_id": ids[2], "accepted": [1], "rejected": [2]},
        {"image_id": ids[3], "accepted": [1, 2]},
    )
    imported = import_file(file, str(thorax))
    counts = (imported.corrected, imported.accepted, imported.rejected, imported.undecided)
    assert counts == (1, 1, 1, 0)
    labels = PseudoLabels(str(thorax))
    by_id = {entry.image_id: entry for entry in labels.entries}
    expected = 2 * heart.astype(np.uint8)
    expected[:4, :4] = 1
    np.testing.assert_array_equal(labels.label_map(by_id[ids[1]]), expected)
    assert by_id[ids[2]].confidences == {"lung": 1.0}
    assert by_id[ids[3]].confidences == {"lung": 1.0, "heart": 1.0}
    output = LabelOutput.open(str(thorax))
    assert list(check_reviews(output, ids)) == []
    (decision,) = Reviews.of(output).decisions[ids[1]]
    assert (decision.reason, decision.classes, decision.values) == ("too large", (1,), (0, 1, 2))


def test_importing_again_changes_nothing(write, thorax, ids, scene):
    file = write(
        correction(ids[1], scene(1)[1].astype(np.uint8)),
        {"image_id": ids[2], "accepted": [1], "rejected": [2]},
    )
    import_file(file, str(thorax))
    before = (thorax / "reviews/decisions.json").read_bytes()
    import_file(file, str(thorax))
    assert (thorax / "reviews/decisions.json").read_bytes() == before


def test_a_later_correction_leaves_no_map_without_a_decision(write, thorax, ids, scene):
    mask = scene(1)[1].astype(np.uint8)
    import_file(write(correction(ids[1], mask)), str(thorax))
    import_file(write(correction(ids[1], np.roll(mask, 1))), str(thorax))
    assert list(check_reviews(LabelOutput.open(str(thorax)), ids)) == []


def test_the_folder_of_an_export_is_still_imported(thorax, tmp_path):
    from typer.testing import CliRunner

    from salip_ray.cli import app

    folder = tmp_path / "folder"
    assert CliRunner().invoke(app, ["export", "review", str(thorax), str(folder)]).exit_code == 0
    done = CliRunner().invoke(app, ["import-review", str(folder), str(thorax)])
    assert "6 undecided" in done.output


MAP = np.ones((42, 56), np.uint8)


@pytest.mark.parametrize(
    ("image", "changes", "message"),
    [
        ({}, {"format": "COCO"}, "was not saved by a review page"),
        ({}, {"version": 2}, "has the version 2, but this version of salip-ray reads 1"),
        ({}, {"output": "0" * 16}, "has decisions about another output than"),
        ({}, {"classes": {"lung": 2}}, "the classes .* are not those of the output"),
        ({"image_id": "f" * 32, "accepted": [1]}, {}, f"has no image {'f' * 32}"),
        ({"accepted": [3]}, {}, "the decision on class 3"),
        ({"accepted": [1], "rejected": [1]}, {}, "the decision on class 1"),
        ({"accepted": "lung"}, {}, "the decision on class 'l'"),
        ({"corrected": [1]}, {}, "'height' is missing"),
        ({"rejected": [1], "reason": "<b>"}, {}, "the reason '<b>'"),
        (correction("", MAP[:, :9]), {}, "is 42 x 9 .* but its image is 42 x 56"),
        (correction("", MAP * 7), {}, "has the value 7, but the class ids are 0, 1, 2, 255"),
        ({**correction("", MAP), "label_map": "AAAA"}, {}, "its text is damaged"),
        ({**correction("", MAP), "height": 10**9}, {}, "the size of image"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_nothing_is_imported(
    write, thorax, ids, image, changes, message
):
    item = {**image, "image_id": image.get("image_id") or ids[1]}
    file = write(item, **changes)
    with pytest.raises(InputError, match=message) as caught:
        import_file(file, str(thorax))
    assert str(file) in str(caught.value)
    assert not (thorax / "reviews").exists()


@pytest.mark.parametrize("content", ["", "no JSON", "[1]", "[]", '"text"', "{}"])
def test_a_file_of_another_kind_is_refused_by_name(thorax, tmp_path, content):
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        import_file(file, str(thorax))
    assert str(file) in str(caught.value)


def test_two_decisions_on_one_image_are_refused(write, thorax, ids):
    one = {"image_id": ids[1], "accepted": [1]}
    with pytest.raises(InputError, match="two decisions on image"):
        import_file(write(one, one), str(thorax))
