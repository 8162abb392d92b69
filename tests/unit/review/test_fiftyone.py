"""FiftyOne: its dataset on disk, FiftyOne itself as a reader, and files that are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salip_ray.datasets.reviews import Reviews
from salip_ray.output.reader import LabelOutput
from tests.unit.review.mixed import SHAPE, label_maps, refused, run
from tests.unit.review.people import packed_array


@pytest.fixture
def exported(mixed, tmp_path):
    run("export", "fiftyone", mixed, tmp_path / "fo")
    return tmp_path / "fo"


def change(folder, edit):
    """Edit the first sample that has a heart; return its image id."""
    content = json.loads((folder / "samples.json").read_text())
    sample = content["samples"][1]
    edit(sample)
    (folder / "samples.json").write_text(json.dumps(content))
    return sample.get("salip_image_id")


def test_samples_have_images_confidence_and_tags(mixed, exported, tmp_path):
    samples = json.loads((exported / "samples.json").read_text())["samples"]
    assert samples[0]["filepath"] == str(tmp_path / "images/view0.png")
    assert samples[10]["filepath"].startswith("images/")  # of the export
    assert "MEIER" not in (exported / "samples.json").read_text()
    assert samples[1]["confidence"] == pytest.approx(0.51)
    labels = samples[1]["pseudo_labels"]["detections"]
    assert [(one["label"], one["confidence"]) for one in labels] == [
        ("lung", pytest.approx(0.51)),
        ("heart", pytest.approx(0.9)),
    ]
    assert samples[0]["tags"] == []
    change(exported, lambda sample: sample["tags"].append("accept"))
    run("import-review", exported, mixed)
    run("export", "fiftyone", mixed, tmp_path / "again")
    samples = json.loads((tmp_path / "again/samples.json").read_text())["samples"]
    assert [sample["tags"] for sample in samples[:3]] == [[], ["reviewed"], []]


def test_boxes_cut_to_whole_pixels_have_the_size_of_their_masks(mixed, exported):
    """FiftyOne multiplies and truncates, so a box must never end a little below a pixel."""
    before = label_maps(mixed)
    for sample in json.loads((exported / "samples.json").read_text())["samples"]:
        for one in sample["pseudo_labels"]["detections"]:
            x, y, width, height = one["bounding_box"]
            top, bottom = int(SHAPE[0] * y), int(SHAPE[0] * (y + height))
            left, right = int(SHAPE[1] * x), int(SHAPE[1] * (x + width))
            mask = before[sample["salip_image_id"]] == {"lung": 1, "heart": 2}[one["label"]]
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert (top, bottom) == (rows[0], rows[-1] + 1)
            assert (left, right) == (columns[0], columns[-1] + 1)


def test_tags_of_labels_decide_on_their_classes(mixed, exported):
    def tag(sample):
        lung, heart = sample["pseudo_labels"]["detections"]
        lung["tags"], heart["tags"] = ["accept"], ["reject"]

    image_id = change(exported, tag)
    assert "0 corrected, 0 accepted, 1 rejected" in run("import-review", exported, mixed)
    (decided,) = Reviews.of(LabelOutput.open(str(mixed))).decisions.items()
    assert decided[0] == image_id
    assert {(one.verdict, one.classes) for one in decided[1]} == {
        ("accepted", (1,)),
        ("rejected", (2,)),
    }


def test_fiftyone_reads_the_masks_and_exports_what_comes_back(mixed, exported, tmp_path):
    fo = pytest.importorskip("fiftyone", reason="pip install fiftyone")
    before = label_maps(mixed)
    kind = fo.types.FiftyOneDataset
    dataset = fo.Dataset.from_dir(dataset_dir=str(exported), dataset_type=kind)
    assert len(dataset) == 30
    dataset.compute_metadata(overwrite=True)
    for sample in dataset:
        drawn = np.zeros(SHAPE, np.uint8)
        for one in sample.pseudo_labels.detections:
            mask = one.to_segmentation(frame_size=SHAPE[::-1]).mask > 0
            drawn[mask] = {"lung": 1, "heart": 2}[one.label]
            assert 0 < one.confidence <= 1
        np.testing.assert_array_equal(drawn, before[sample.salip_image_id])
        assert (sample.metadata.height, sample.metadata.width) == SHAPE
        sample.tags.append("accept")
        sample.save()
    back = tmp_path / "back"
    dataset.export(export_dir=str(back), dataset_type=kind, export_media=False)
    assert "0 corrected, 30 accepted" in run("import-review", back, mixed)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s["pseudo_labels"]["detections"][0].update(label="liver"), "label 'liver'"),
        (lambda s: s["pseudo_labels"]["detections"][0].update(mask=None), "lung has no mask"),
        (
            lambda s: s["pseudo_labels"]["detections"][0].update(bounding_box=[0, 0, 0.1, 0.1]),
            "does not fit its box",
        ),
        (
            lambda s: s["pseudo_labels"]["detections"][0]["mask"]["$binary"].update(base64="AA=="),
            "a mask is damaged",
        ),
        (
            lambda s: s["pseudo_labels"]["detections"][0]["mask"]["$binary"].update(
                base64=packed_array(np.array([{}]))
            ),
            "cannot be imported",
        ),
        (lambda s: s.pop("tags"), "'tags' is missing"),
        (lambda s: s.update(salip_image_id="f" * 32), "has no image ffff"),
        (lambda s: s.pop("salip_image_id"), "without salip_image_id"),
    ],
)
def test_a_wrong_dataset_of_fiftyone_is_refused_by_name(mixed, exported, edit, message):
    change(exported, edit)
    output = refused("import-review", exported, mixed)
    assert str(exported) in output
    assert message in output
    assert not (mixed / "reviews").exists()
