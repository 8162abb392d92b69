"""Logits of several masks at once: resized and compared as the official package does."""

from __future__ import annotations

import pytest
import torch
from segment_anything.utils.amg import calculate_stability_score

from salip_ray.cascade import sam_ops


@pytest.mark.parametrize("size", [(256, 256), (256, 200), (131, 256), (700, 1024)])
@pytest.mark.parametrize("count", [1, 5])
def test_masks_are_resized_as_by_the_official_package(bundled_sam, size, count):
    logits = torch.randn(count, 64, 64, generator=torch.Generator().manual_seed(count)) * 10
    ours = sam_ops.upscale(bundled_sam, logits, size, size)
    official = bundled_sam.postprocess_masks(
        logits[None], sam_ops.input_size(bundled_sam, size), size
    )
    torch.testing.assert_close(ours, official[0], rtol=0, atol=1e-5)


def test_stability_is_the_official_one():
    logits = torch.randn(5, 30, 40, generator=torch.Generator().manual_seed(0)) * 3
    official = calculate_stability_score(logits, 0.5, 1.0)
    torch.testing.assert_close(sam_ops.stability_score(logits, 0.5, 1.0), official)


def test_a_mask_that_is_empty_at_both_thresholds_has_no_stability():
    assert sam_ops.stability_score(torch.full((1, 8, 8), -9.0), 0.0, 1.0).isnan().all()
