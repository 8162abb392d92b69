"""What CLIP is shown of a candidate."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.cascade.visual_prompts import pad_to_square, visual_prompt
from salip_ray.config import RetrieveConfig
from salip_ray.schema import Candidate

MODES = ("crops", "crop_expand", "bbox", "reverse_box_mask", "contour")


def candidate(mask: np.ndarray) -> Candidate:
    rows, columns = np.nonzero(mask)
    return Candidate(
        id=0,
        mask=mask,
        area=int(mask.sum()),
        box=(float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max())),
        predicted_iou=0.9,
        stability_score=0.9,
        point=(0.0, 0.0),
        crop_box=(0.0, 0.0, mask.shape[1] - 1.0, mask.shape[0] - 1.0),
    )


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 255, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def corner():
    """An L in the rows 25 to 39 and columns 30 to 59: it reaches the last row and column."""
    mask = np.zeros((40, 60), dtype=bool)
    mask[25:40, 30:34] = True
    mask[36:40, 30:60] = True
    return candidate(mask)


def shown(image, part, mode, **options):
    return visual_prompt(image, part, RetrieveConfig(visual_prompt=mode, **options))


def test_crops_shows_the_masked_candidate_up_to_its_last_row_and_column(image, corner):
    crop = shown(image, corner, "crops")
    inside = corner.mask[25:40, 30:60]
    assert crop.shape == (15, 30, 3)
    np.testing.assert_array_equal(crop[inside], image[25:40, 30:60][inside])
    assert not crop[~inside].any()


def test_crop_expand_keeps_the_background_and_stops_at_the_border(image, corner):
    # The long side is 60 instead of 256 px, so 10 px are 2 here.
    np.testing.assert_array_equal(shown(image, corner, "crop_expand"), image[23:, 28:])
    np.testing.assert_array_equal(
        shown(image, corner, "crop_expand", expand_px=43), image[15:, 20:]
    )


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("mode", "length"), [("crop_expand", 10), ("bbox", 1), ("contour", 1)])
def test_lengths_scale_with_the_working_image(mode, length, scale):
    side = 256 * scale
    image = np.full((side, side, 3), 100, dtype=np.uint8)
    mask = np.zeros((side, side), dtype=bool)
    mask[100 * scale : 140 * scale, 120 * scale : 180 * scale] = True
    picture = shown(image, candidate(mask), mode)
    if mode == "crop_expand":
        assert picture.shape == (60 * scale, 80 * scale, 3)
    else:
        red_rows = (picture == (255, 0, 0)).all(axis=2).any(axis=1)
        beyond_the_box = int(np.flatnonzero(red_rows)[-1]) - (140 * scale - 1)
        assert beyond_the_box == length * scale


def test_bbox_draws_the_box_in_red(image, corner):
    drawn = shown(image, corner, "bbox")
    assert drawn.shape == image.shape
    for row, column in ((25, 45), (39, 45), (30, 30), (30, 59)):
        assert drawn[row, column].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(drawn[30:35, 35:55], image[30:35, 35:55])
    np.testing.assert_array_equal(drawn[:20], image[:20])


def test_reverse_box_mask_greys_the_outside_by_half(image, corner):
    greyed = shown(image, corner, "reverse_box_mask")
    np.testing.assert_array_equal(greyed[25:40, 30:60], image[25:40, 30:60])
    np.testing.assert_array_equal(greyed[:25], (image[:25].astype(int) + 128) // 2)
    np.testing.assert_array_equal(greyed[:, :30], (image[:, :30].astype(int) + 128) // 2)


def test_contour_follows_the_candidate_not_its_box(image, corner):
    drawn = shown(image, corner, "contour")
    assert drawn[25, 31].tolist() == [255, 0, 0]
    assert drawn[39, 58].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(drawn[25:34, 40:], image[25:34, 40:])


@pytest.mark.parametrize("mode", MODES)
def test_visual_prompt_does_not_modify_working_image(image, corner, mode):
    before = image.copy()
    image.setflags(write=False)  # as it arrives from a shared object store
    picture = shown(image, corner, mode)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("mode", MODES)
def test_trap_7_a_mask_one_pixel_wide_is_not_empty(image, mode):
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:20, 59] = True
    picture = shown(image, candidate(mask), mode, expand_px=0)
    assert picture.any()
    if mode in {"crops", "crop_expand"}:
        np.testing.assert_array_equal(picture, image[5:20, 59:60])


def test_trap_7_a_single_pixel_is_a_crop_of_one_pixel(image):
    mask = np.zeros((40, 60), dtype=bool)
    mask[0, 0] = True
    assert shown(image, candidate(mask), "crops").tolist() == [[image[0, 0].tolist()]]


@pytest.mark.parametrize("mode", MODES)
def test_trap_12_square_padding_keeps_the_ends(image, corner, mode):
    plain, padded = shown(image, corner, mode), shown(image, corner, mode, padding="square")
    height, width = plain.shape[:2]
    assert padded.shape[:2] == (max(height, width),) * 2
    top = (max(height, width) - height) // 2
    np.testing.assert_array_equal(padded[top : top + height], plain)
    assert not padded[:top].any()


def test_trap_12_clips_own_transform_cuts_the_ends_unless_padded(clip):
    """A long black crop with white ends: CLIP sees them only on a padded square."""
    long = np.zeros((20, 200, 3), dtype=np.uint8)
    long[:, :40] = long[:, -40:] = 255
    plain = clip.encode_images([long, np.zeros_like(long)])
    padded = clip.encode_images([pad_to_square(long), pad_to_square(np.zeros_like(long))])
    assert plain[0].equal(plain[1])
    assert not padded[0].allclose(padded[1])
