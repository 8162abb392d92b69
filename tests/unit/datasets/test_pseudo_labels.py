"""Labels as training data."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError, InputError, OutputError

CONFIDENCES = (0.9, 0.3, 0.7, 0.8, 0.5, 0.95)


def test_items_are_images_with_their_label_maps(output, scene):
    labels = PseudoLabels(str(output))
    assert len(labels) == len(CONFIDENCES)
    for index, sample in enumerate(labels):
        image, left, right = scene(index)
        np.testing.assert_array_equal(sample["image"], image)
        expected = left * 1 + (right * 2 if index else 0)
        np.testing.assert_array_equal(sample["labels"], expected)
        assert sample["labels"].dtype == np.uint8
        assert sample["confidence"] == pytest.approx(CONFIDENCES[index])
        assert sample["uri"].endswith(f"view{index}.png")


def test_images_with_an_uncertain_label_are_left_out(output):
    labels = PseudoLabels(str(output), min_confidence=0.6)
    assert [entry.confidence for entry in labels.entries] == pytest.approx([0.9, 0.7, 0.8, 0.95])
    with pytest.raises(
        InputError, match="left out 6 images with a label whose confidence is below"
    ):
        PseudoLabels(str(output), min_confidence=0.999)
    with pytest.raises(ConfigError, match="within 0 and 1, found 60"):
        PseudoLabels(str(output), min_confidence=60)


def test_class_ids_do_not_change_in_a_subset(output):
    labels = PseudoLabels(str(output), classes=["heart"])
    assert len(labels) == 5  # the first image has none
    assert labels.class_ids == {"heart": 2}
    assert set(np.unique(labels[0]["labels"])) == {0, 2}
    assert labels[0]["confidence"] == pytest.approx(0.99)
    with pytest.raises(ConfigError, match=r"has no class 'liver': it has lung, heart"):
        PseudoLabels(str(output), classes=["liver"])


def test_disagreement_is_ignored_only_on_request(output, scene):
    plain = PseudoLabels(str(output))[1]["labels"]
    unsure = PseudoLabels(str(output), ignore_disagreement=True)[1]["labels"]
    _, left, right = scene(1)
    differs = (np.roll(left, 2, axis=0) != left) | (np.roll(right, 2, axis=0) != right)
    np.testing.assert_array_equal(unsure == 255, differs)
    np.testing.assert_array_equal(unsure[~differs], plain[~differs])
    assert 255 not in plain


def test_moved_images_load_with_images_root(output, tmp_path, scene):
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"does not exist .*give images_root"):
        PseudoLabels(str(output))[0]
    labels = PseudoLabels(str(output), images_root=str(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(labels[3]["image"], scene(3)[0])


def test_an_image_that_has_changed_its_size_is_named(output, tmp_path):
    shutil.copy(tmp_path / "images/patient0/view1.png", tmp_path / "images/patient1/view2.png")
    with pytest.raises(InputError, match=r"view2\.png is 42 x 56 .*was 44 x 56"):
        PseudoLabels(str(output))[2]


def test_splits_keep_patients_together_and_repeat(output):
    labels = PseudoLabels(str(output))
    parts = labels.split({"train": 0.67, "val": 0.33}, seed=3, group_by=r"patient\d+")
    patients = [{e.uri.split("/")[-2] for e in part.entries} for part in parts.values()]
    assert not patients[0] & patients[1]
    assert [len(part) for part in parts.values()] == [4, 2]
    again = labels.split({"train": 0.67, "val": 0.33}, seed=3, group_by=r"patient\d+")
    assert [e.uri for e in parts["val"].entries] == [e.uri for e in again["val"].entries]
    others = {
        labels.split({"train": 0.67, "val": 0.33}, seed=s, group_by="folder")["val"].entries[0].uri
        for s in range(9)
    }
    assert len(others) > 1
    assert parts["val"][0]["labels"].any()


def test_torch_loads_items_in_pickled_workers(output):
    def cut(sample):
        return {"image": sample["image"][:40, :40], "labels": sample["labels"][:40, :40]}

    labels = PseudoLabels(str(output), transform=cut)
    batches = list(DataLoader(labels, batch_size=3, num_workers=0))
    assert [tuple(batch["image"].shape) for batch in batches] == [(3, 40, 40, 3)] * 2
    assert batches[0]["labels"].dtype == torch.uint8
    copy = pickle.loads(pickle.dumps(labels.with_transform(None)))
    np.testing.assert_array_equal(copy[2]["labels"], labels.with_transform(None)[2]["labels"])


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        PseudoLabels(str(tmp_path))


def test_subsets_share_settings_and_leave_the_whole_unchanged(output):
    labels = PseudoLabels(str(output), classes=["lung"], ignore_disagreement=True)
    part = labels.subset([2, 0])
    assert [entry.image_id for entry in part.entries] == [
        labels.entries[2].image_id,
        labels.entries[0].image_id,
    ]
    assert (len(labels), part.class_ids, part.may_ignore) == (6, {"lung": 1}, True)
    doubled = part.with_transform(lambda sample: sample["image_id"] * 2)
    assert doubled[0] == labels.entries[2].image_id * 2
    assert part.transform is None


def test_limits_do_not_change_where_moved_images_are(output, tmp_path, scene):
    """The common folder is that of all images, not of those above the limits."""
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    labels = PseudoLabels(str(output), images_root=str(tmp_path / "elsewhere"), min_confidence=0.92)
    (sample,) = labels
    np.testing.assert_array_equal(sample["image"], scene(5)[0])
