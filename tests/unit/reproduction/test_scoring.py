"""The published scoring, against figures that are worked out by hand or by its own formula."""

from __future__ import annotations

import math

import cv2
import nibabel
import numpy as np
import pytest

from salip_ray.config import load_config
from salip_ray.reproduction.scoring import (
    Figure,
    dice_2d,
    dice_of_slice,
    mean_of,
    own_figures,
    published_figures,
)
from salip_ray.sources.references import References
from tests.handmade import write_labels


def disc(size, centre, radius):
    return cv2.circle(np.zeros(size, np.uint8), centre, radius, 1, -1).astype(bool)


@pytest.mark.parametrize("binary", [True, False])
def test_dice_in_2d_is_that_of_the_published_loop(binary):
    mask, reference = disc((300, 400), (180, 150), 90), disc((300, 400), (200, 150), 90)
    small = cv2.resize(mask.astype(np.uint8), (256, 256), interpolation=cv2.INTER_NEAREST_EXACT)
    if binary:
        grey = cv2.resize(reference.astype(np.uint8) * 255, (256, 256))
        truth = np.where(grey / 255.0 > 0.5, 1, 0)
    else:
        truth = cv2.resize(reference.astype(np.float32), (256, 256))
    expected = 2.0 * np.sum(truth * small) / (np.sum(truth) + np.sum(small))
    assert dice_2d(mask, reference, binary=binary) == pytest.approx(expected, abs=1e-6)
    assert (truth % 1).any() != binary  # the outline is fractional in one of the two


def test_a_mask_of_256_pixels_comes_back_from_any_larger_size():
    mask = np.random.default_rng(0).random((256, 256)) < 0.5
    for size in ((256, 256), (257, 300), (540, 800), (1000, 3000)):
        whole = cv2.resize(
            mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT
        ).astype(bool)
        assert dice_2d(whole, whole, binary=True) > 0.9
        back = cv2.resize(whole.astype(np.uint8), (256, 256), interpolation=cv2.INTER_NEAREST_EXACT)
        assert np.array_equal(back, mask)


def test_empty_masks_have_no_dice_in_2d_and_1_in_a_slice():
    empty = np.zeros((5, 6), bool)
    assert math.isnan(dice_2d(empty, empty, binary=True))
    assert dice_of_slice(empty, empty) == 1
    assert dice_of_slice(empty, ~empty) == pytest.approx(0, abs=1e-6)


def test_dice_of_a_slice_is_twice_the_overlap_over_both_areas():
    mask, reference = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    mask[:2], reference[1:] = True, True
    assert dice_of_slice(mask, reference) == pytest.approx(2 * 4 / (8 + 12))


def test_a_volume_counts_once_and_as_the_mean_over_its_slices():
    figures = [
        Figure("faithful", "published", "cascade", uri, number, dice)
        for uri, values in {"a": [0.0, 1.0, math.nan], "b": [0.8]}.items()
        for number, dice in enumerate(values)
    ]
    mean = mean_of(figures)
    assert (mean.dice, mean.n) == (pytest.approx((0.5 + 0.8) / 2), 2)
    assert mean.low <= mean.dice <= mean.high


@pytest.fixture
def labels(tmp_path):
    """Two volumes of three slices, labelled right but for one slice that is empty."""
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    truth = np.zeros((3, 8, 9), np.uint8)
    truth[:, 2:6, 3:7] = 1
    for name in ("a", "b"):
        volume = rng.integers(0, 200, truth.shape).astype(np.int16)
        for folder, values in (("in", volume), ("masks", truth)):
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / folder / f"{name}.nii")
    config = load_config("brain", overrides=["image.axis=sagittal", "clip.allow_untaught=true"])

    def masks_of(row):
        right = np.rot90(truth[0])[:, ::-1].astype(bool)
        missing = row["uri"].endswith("b.nii") and row["slice"] == 1
        return {"brain": right & (not missing)}

    output = write_labels(tmp_path / "in", tmp_path / "out", config, masks_of)
    return output, References.open(str(tmp_path / "masks"))


def test_volumes_are_scored_by_slice_as_published_and_in_3d_by_ours(labels):
    figures = list(published_figures("faithful", *labels, volumes=True, binary=True))
    assert [(figure.slice, round(figure.dice, 4)) for figure in figures] == [
        *((0, 1.0), (1, 1.0), (2, 1.0)),
        *((0, 1.0), (1, 0.0), (2, 1.0)),
    ]
    assert mean_of(figures).dice == pytest.approx((1 + 2 / 3) / 2)
    ours = list(own_figures("faithful", *labels, volumes=True))
    assert [round(figure.dice, 4) for figure in ours] == [1.0, 0.8]
    (only,) = own_figures("faithful", *labels, volumes=True, without=[ours[0].uri])
    assert only.uri == ours[1].uri
