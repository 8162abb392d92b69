"""A trial on a cached image scores what the cascade would label, without any encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.proposer import SamProposer
from salip_ray.config import load_config
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.clip.load import load_clip
from salip_ray.models.sam.load import load_sam
from salip_ray.tuning.cache import cache_image, from_bytes, grid_key, loosest_settings, to_bytes
from salip_ray.tuning.space import with_changes
from salip_ray.tuning.trials import CachedTexts, Trial

BASE = (
    "image.long_side=64",
    "propose.points_per_side=4",
    "task.min_area=0",
    "task.max_area=1",
)
CHANGES = (
    {},
    {"propose.pred_iou_thresh": 0.7, "propose.box_nms_thresh": 0.6, "retrieve.padding": "square"},
    {"propose.stability_score_thresh": 0.9, "task.top_k": 1, "retrieve.visual_prompt": "bbox"},
    {"propose.points_per_side": 2, "propose.min_mask_region_area": 0, "task.max_area": 0.3},
    {"propose.crop_n_layers": 1, "propose.crop_nms_thresh": 0.5, "refine.mask_feedback": 1},
)


@pytest.fixture(scope="module")
def models():
    config = load_config("lungs", overrides=BASE)
    return config, load_sam(config.sam), load_clip(config.clip)


@pytest.fixture(scope="module")
def cached(models):
    config, sam, clip = models
    phantom = make_phantom("chest_xray", 5, bank="tune", size=96)
    recipes = [with_changes(config, changes) for changes in CHANGES]
    grids: dict[str, list] = {}
    for recipe in recipes:
        grids.setdefault(grid_key(recipe.propose), []).append(recipe.propose)
    assert len(grids) == 3
    proposers = {
        key: SamProposer(sam, config.model_copy(update={"propose": loosest_settings(settings)}))
        for key, settings in grids.items()
    }
    encoded = []
    forward = sam.image_encoder.forward

    def counted(batch: torch.Tensor) -> torch.Tensor:
        encoded.append(len(batch))
        return forward(batch)

    sam.image_encoder.forward = counted
    try:
        references = {"lungs": phantom.mask("lungs")}
        made = cache_image(phantom.image, references, recipes, proposers, clip)
    finally:
        sam.image_encoder.forward = forward
    return phantom, recipes, from_bytes(to_bytes(made)), sum(encoded)


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_trial_scores_what_the_cascade_labels(models, cached, number):
    _, sam, clip = models
    phantom, recipes, image, _ = cached
    config = recipes[number]
    texts = CachedTexts.from_bytes(CachedTexts.of(clip, config).to_bytes())
    scores = Trial(config, sam, texts).dice(image)
    result = Cascade(config, sam=sam, clip=clip)(phantom.image)
    masks = {mask.label: mask.mask for mask in result.masks}
    expected = dice(
        masks.get("lungs", np.zeros(phantom.image.shape[:2], np.bool_)), phantom.mask("lungs")
    )
    candidates, n_proposed = image.candidates(config)
    assert n_proposed == result.n_proposed
    assert [c.id for c in candidates] == [c.id for c in result.candidates]
    assert scores["lungs"] == pytest.approx(expected, abs=1e-3)


def test_each_view_is_encoded_once_for_all_recipes(cached):
    assert cached[3] == 5  # the full view and four crops, for three grids


def test_recipes_have_different_scores(models, cached):
    _, sam, clip = models
    _, recipes, image, _ = cached
    texts = CachedTexts.of(clip, recipes[0])
    assert len({round(Trial(recipe, sam, texts).dice(image)["lungs"], 6) for recipe in recipes}) > 2
