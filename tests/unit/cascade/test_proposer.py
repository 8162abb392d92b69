"""Proposals against the official automatic mask generator on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from salip_ray.cascade import candidates as parts
from salip_ray.cascade.proposer import SamProposer
from salip_ray.config import ProposeConfig, load_config
from salip_ray.errors import ConfigError, ImageError
from salip_ray.models.bundled.sam_net import load_bundled_sam

NOT_OF_SAM = {"model", "options", "weights", "min_area", "max_area"}


def official(sam, config, image):
    settings = config.propose.model_dump(exclude=NOT_OF_SAM)
    return SamAutomaticMaskGenerator(sam, **settings).generate(image)


def assert_same(candidates, records, rounding=1e-6):
    """Equal in number, order, masks and every value; scores of a network but for rounding.

    Views go through the encoder together, which sums in another order than one by one.
    """
    assert [c.id for c in candidates] == list(range(len(records)))
    for candidate, record in zip(candidates, records, strict=True):
        np.testing.assert_array_equal(candidate.mask, record["segmentation"])
        assert candidate.area == record["area"]
        x0, y0, x1, y1 = candidate.box
        assert [x0, y0, x1 - x0, y1 - y0] == record["bbox"]
        assert candidate.predicted_iou == pytest.approx(record["predicted_iou"], abs=rounding)
        assert candidate.stability_score == pytest.approx(record["stability_score"], abs=rounding)
        assert [list(candidate.point)] == record["point_coords"]
        x0, y0, x1, y1 = candidate.crop_box  # inclusive, as all boxes here; upstream's is not
        assert [x0, y0, x1 - x0 + 1, y1 - y0 + 1] == record["crop_box"]


SETTINGS = {
    "as they come": {},
    "every mask": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0},
    "confident": {"pred_iou_thresh": 0.9},
    "stable": {"stability_score_thresh": 0.65, "stability_score_offset": 2.0},
    "few points at a time": {"points_per_batch": 5},
    "strict NMS": {"box_nms_thresh": 0.3},
    "1 crop layer": {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "2 crop layers": {
        "points_per_side": 4,
        "crop_n_layers": 2,
        "crop_overlap_ratio": 0.5,
        "crop_nms_thresh": 0.9,
    },
    "strict NMS between crops": {"crop_n_layers": 1, "crop_nms_thresh": 0.2},
    "small regions": {"min_mask_region_area": 40, "pred_iou_thresh": 0.0},
    "small regions of crops": {
        "min_mask_region_area": 60,
        "crop_n_layers": 1,
        "box_nms_thresh": 0.5,
        "crop_nms_thresh": 0.95,
    },
}


CASES = [pytest.param(settings, (90, 128), id=name) for name, settings in SETTINGS.items()] + [
    pytest.param(SETTINGS[name], size, id=f"{name} {size}")
    for name in ("as they come", "small regions of crops")
    for size in ((128, 128), (200, 75))
]


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_parity_with_the_official_generator(sam, configure, picture, settings, size):
    config, image = configure(propose=settings), picture(*size)
    proposals = SamProposer(sam, config)(image)
    records = official(sam, config, image)
    assert len(records) > 3
    assert proposals.n_proposed == len(records)
    assert_same(proposals.candidates, records)


@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_parity_on_the_bundled_sam(bundled_sam, phantom, crop_n_layers):
    settings = {
        "points_per_side": 8 // 2**crop_n_layers,
        "crop_n_layers": crop_n_layers,
        # Low, whatever the weights' own calibration is.
        "pred_iou_thresh": 0.2,
        "stability_score_thresh": 0.2,
    }
    task = {"name": "test", "prompts": {"lungs": ["the lungs"]}}
    config = load_config({"task": task}, preset="bundled", overrides={"propose": settings})
    records = official(load_bundled_sam(), config, phantom)
    assert len(records) > 3
    assert_same(SamProposer(bundled_sam, config)(phantom).candidates, records, rounding=1e-5)


def test_the_embedding_is_the_official_predictors(sam, configure, picture):
    image = picture(90, 128)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    proposals = SamProposer(sam, configure(propose={"crop_n_layers": 1}))(image)
    assert proposals.embedding.dtype == torch.float32
    official_one = predictor.get_image_embedding()
    torch.testing.assert_close(proposals.embedding, official_one, rtol=0, atol=1e-5)


def test_the_same_image_gives_the_same_proposals(sam, configure, picture):
    proposer, image = SamProposer(sam, configure(propose={"crop_n_layers": 1})), picture(100, 128)
    first, second = proposer(image), proposer(image)
    assert torch.equal(first.embedding, second.embedding)
    for one, other in zip(first.candidates, second.candidates, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        assert (one.box, one.predicted_iou) == (other.box, other.predicted_iou)


@pytest.mark.parametrize(
    ("limits", "low", "high"),
    [
        ({"min_area": 0.05, "max_area": 0.2}, 0.05 * 128 * 100, 0.2 * 128 * 100),
        ({"min_area": 700.0, "max_area": 2000.0}, 700, 2000),
    ],
    ids=["fraction", "pixels"],
)
def test_trap_1_the_area_filter_keeps_ids(sam, configure, picture, limits, low, high):
    image = picture(100, 128)
    task = {"name": "test", "prompts": {"organ": ["an organ"]}}
    everything = SamProposer(sam, configure(task=task))(image)
    filtered = SamProposer(sam, configure(task={**task, **limits}))(image)
    expected = [c for c in everything.candidates if low < c.area < high]
    assert 0 < len(expected) < len(everything.candidates)
    assert [c.id for c in filtered.candidates] == [c.id for c in expected]
    assert [c.area for c in filtered.candidates] == [c.area for c in expected]
    assert filtered.n_proposed == everything.n_proposed


def test_the_area_limits_are_exclusive(sam, configure, picture):
    image = picture(100, 128)
    areas = sorted({c.area for c in SamProposer(sam, configure())(image).candidates})
    task = {"min_area": float(areas[0]), "max_area": float(areas[-1])}
    retained = {c.area for c in SamProposer(sam, configure(task=task))(image).candidates}
    assert retained == set(areas[1:-1])


@pytest.mark.parametrize("crop_n_layers", [0, 1, 2])
@pytest.mark.parametrize("clean", [0, 50])
def test_trap_6_no_candidate_is_an_ordinary_result(sam, configure, picture, crop_n_layers, clean):
    settings = {
        "pred_iou_thresh": 1.0,
        "crop_n_layers": crop_n_layers,
        "min_mask_region_area": clean,
    }
    config, image = configure(propose=settings), picture(100, 128)
    proposals = SamProposer(sam, config)(image)
    assert (proposals.candidates, proposals.n_proposed) == ((), 0)
    assert proposals.embedding.shape == (1, 32, 16, 16)
    if crop_n_layers:  # what upstream does
        with pytest.raises(IndexError):
            official(sam, config, image)


def test_trap_6_views_without_candidates_next_to_views_with_some(sam, configure, picture):
    image = picture(128, 128)
    every = SamProposer(sam, configure(propose={"crop_n_layers": 1, "pred_iou_thresh": 0.0}))(image)
    best = sorted(c.predicted_iou for c in every.candidates)[-3]
    config = configure(propose={"crop_n_layers": 1, "pred_iou_thresh": best})
    proposals = SamProposer(sam, config)(image)
    assert 0 < proposals.n_proposed <= 2
    assert_same(proposals.candidates, official(sam, config, image))


def test_trap_6_smaller_crops_come_first_and_cleaning_reorders_again(sam, configure, picture):
    image = picture(128, 128)
    settings = {"crop_n_layers": 1, "pred_iou_thresh": 0.0, "crop_nms_thresh": 0.95}
    plain = SamProposer(sam, configure(propose=settings))(image).candidates
    boxes = [c.crop_box for c in plain]
    areas = [(x1 - x0 + 1) * (y1 - y0 + 1) for x0, y0, x1, y1 in boxes]
    assert areas == sorted(areas)
    assert len(set(areas)) > 1
    settings["min_mask_region_area"] = 60
    cleaned = SamProposer(sam, configure(propose=settings))(image).candidates
    assert [c.point for c in cleaned] != [c.point for c in plain[: len(cleaned)]]


def test_trap_6_nms_is_stable_beyond_1000_boxes():
    # 1,500 boxes, 3 to a place, all of one score: the first of each place wins, in order.
    corners = torch.arange(500.0).repeat(3) * 10
    boxes = torch.stack([corners, corners, corners + 8, corners + 8], dim=1)
    keep = parts.nms(boxes, torch.full((1500,), 0.5), 0.7)
    assert keep.tolist() == list(range(500))


def test_trap_6_beyond_1000_boxes_the_set_is_the_official_one(sam, configure, picture):
    settings = {
        "points_per_side": 20,
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "box_nms_thresh": 0.9,
    }
    config, image = configure(propose=settings), picture(64, 64)
    ours = SamProposer(sam, config)(image).candidates
    theirs = official(sam, config, image)

    def key(point, mask):
        return tuple(point), mask.tobytes()

    assert {key(c.point, c.mask) for c in ours} == {
        key(r["point_coords"][0], np.ascontiguousarray(r["segmentation"])) for r in theirs
    }


def test_trap_9_a_constant_image_is_an_ordinary_image(sam, configure):
    image = np.full((100, 128, 3), 7, dtype=np.uint8)
    config = configure(propose={"pred_iou_thresh": 0.0})
    assert_same(SamProposer(sam, config)(image).candidates, official(sam, config, image))


def test_trap_10_nms_thresholds_default_to_upstreams():
    upstream = SamAutomaticMaskGenerator.__init__.__defaults__
    names = SamAutomaticMaskGenerator.__init__.__code__.co_varnames[2:]
    defaults = dict(zip(names, upstream, strict=False))
    ours = ProposeConfig().model_dump(exclude=NOT_OF_SAM)
    assert ours == {name: defaults[name] for name in ours}
    assert (ours["box_nms_thresh"], ours["crop_nms_thresh"]) == (0.7, 0.7)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (2, 3), (128, 1)], ids=str)
def test_tiny_images_pass_every_crop_layer(sam, configure, picture, size):
    config = configure(propose={"crop_n_layers": 2, "pred_iou_thresh": 0.0})
    for candidate in SamProposer(sam, config)(picture(*size)).candidates:
        assert candidate.mask.shape == size


def test_an_image_too_elongated_for_sam_is_refused(sam, configure, picture):
    with pytest.raises(ImageError, match="300 x 1 pixels is too elongated"):  # language: ok
        SamProposer(sam, configure())(picture(1, 300))


def test_a_crop_layer_without_points_is_refused(sam, configure):
    settings = {"points_per_side": 3, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2}
    with pytest.raises(ConfigError, match=r"points_per_side is 3.*layer 2"):
        SamProposer(sam, configure(propose=settings))
