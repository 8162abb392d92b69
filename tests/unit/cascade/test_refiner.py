"""Box prompts against the official predictor on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.utils.amg import calculate_stability_score

from salip_ray.cascade import sam_ops as prompting
from salip_ray.cascade.geometry import to_working
from salip_ray.cascade.refiner import SamRefiner

BOXES = ((10.0, 12.0, 60.0, 70.0), (40.5, 30.0, 100.0, 88.25), (0.0, 0.0, 127.0, 89.0))


def official(sam, image, boxes):
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    answers = [predictor.predict(box=np.array(b), multimask_output=False) for b in boxes]
    return [masks[0] for masks, _, _ in answers], [ious[0] for _, ious, _ in answers]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_parity_with_the_official_predictor(sam, configure, picture, batch_size):
    image = picture(90, 128)
    refiner = SamRefiner(sam, configure(refine={"batch_size": batch_size}))
    refined = refiner(
        refiner.encode(image), boxes=BOXES, working_size=(90, 128), original_size=(90, 128)
    )
    masks, ious = official(sam, image, BOXES)
    assert 0 < refined.masks.sum() < refined.masks.size
    np.testing.assert_array_equal(refined.masks, masks)
    np.testing.assert_allclose(refined.predicted_iou, ious, rtol=1e-6)


def test_parity_on_an_image_larger_than_the_working_image(sam, configure, picture):
    """Working images of SAM's own size give what the predictor gives on the original."""
    image = picture(270, 384)
    working = to_working(image, 128)
    assert working.shape == (90, 128, 3)
    refiner = SamRefiner(sam, configure())
    refined = refiner(
        refiner.encode(working), boxes=BOXES, working_size=(90, 128), original_size=(270, 384)
    )
    masks, _ = official(sam, image, [tuple(3 * value for value in box) for box in BOXES])
    np.testing.assert_array_equal(refined.masks, masks)


def test_parity_on_the_bundled_sam(bundled_sam, configure, phantom):
    size = phantom.shape[:2]
    boxes = ((20.0, 30.0, 110.0, 180.0), (120.0, 30.0, 220.0, 190.0))
    refiner = SamRefiner(bundled_sam, configure())
    refined = refiner(refiner.encode(phantom), boxes=boxes, working_size=size, original_size=size)
    masks, ious = official(bundled_sam, phantom, boxes)
    assert all(0.01 < mask.mean() < 0.5 for mask in masks)
    np.testing.assert_array_equal(refined.masks, masks)
    np.testing.assert_allclose(refined.predicted_iou, ious, rtol=1e-5)


def test_logits_are_cut_at_the_original_size_not_at_the_working_size(sam, configure, picture):
    image = picture(90, 128)
    refiner = SamRefiner(sam, configure())
    embedding = refiner.encode(image)
    sizes = {"working_size": (90, 128), "original_size": (360, 512)}
    refined = refiner(embedding, boxes=BOXES, **sizes)
    low_res, _ = prompting.decode(
        sam, embedding, (90, 128), boxes=torch.tensor(BOXES), multimask=False
    )
    logits = sam.postprocess_masks(low_res, (90, 128), (360, 512))[:, 0]
    np.testing.assert_array_equal(refined.masks, logits > 0)
    small = refiner(embedding, boxes=BOXES, **{**sizes, "original_size": (90, 128)}).masks
    assert (np.kron(small, np.ones((1, 4, 4), dtype=bool)) != refined.masks).any()


def test_figures_are_the_official_ones(sam, configure, picture):
    image = picture(90, 128)
    refiner = SamRefiner(sam, configure(propose={"stability_score_offset": 3.0}))
    embedding = refiner.encode(image)
    sizes = {"working_size": (90, 128), "original_size": (90, 128)}
    refined = refiner(embedding, boxes=BOXES, **sizes)
    low_res, _ = prompting.decode(
        sam, embedding, (90, 128), boxes=torch.tensor(BOXES), multimask=False
    )
    logits = sam.postprocess_masks(low_res, (90, 128), (90, 128))[:, 0]
    expected = calculate_stability_score(logits, sam.mask_threshold, 3.0)
    np.testing.assert_allclose(refined.stability, expected, rtol=1e-6)


def test_trap_2_no_box_gives_no_mask(sam, configure, picture):
    refiner = SamRefiner(sam, configure())
    refined = refiner(
        torch.zeros(1, 32, 16, 16), boxes=(), working_size=(90, 128), original_size=(45, 64)
    )
    assert refined.masks.shape == (0, 45, 64)
    assert refined.union.shape == (45, 64)
    assert not refined.union.any()


def test_an_embedding_in_half_precision_is_accepted(sam, configure, picture):
    refiner = SamRefiner(sam, configure())
    embedding = refiner.encode(picture(90, 128))
    options = {"boxes": BOXES, "working_size": (90, 128), "original_size": (90, 128)}
    full, half = refiner(embedding, **options), refiner(embedding.half(), **options)
    agree = (full.masks & half.masks).sum() / (full.masks | half.masks).sum()
    assert agree > 0.98
