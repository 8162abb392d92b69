"""Logits of several masks at once: resized, compared with thresholds, counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import calculate_stability_score

from salip_ray.cascade import sam_ops


@pytest.mark.parametrize("size", [(256, 256), (256, 200), (131, 256)])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_masks_are_resized_together_as_each_alone(bundled_sam, size, count):
    logits = torch.randn(count, 64, 64, generator=torch.Generator().manual_seed(count)) * 10
    together = sam_ops.upscale(bundled_sam, logits, size, size)
    official = bundled_sam.postprocess_masks(logits[None], size, size)[0]
    assert together.shape == (count, *size)
    torch.testing.assert_close(together, official, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stored", ["mask by mask", "pixel by pixel"])
def test_counts_give_masks_and_the_official_stability(stored):
    logits = torch.randn(5, 30, 40, generator=torch.Generator().manual_seed(0)) * 3
    given = logits
    if stored == "pixel by pixel":
        given = logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    counts = sam_ops.count_thresholds(given, 0.5, 1.0)
    expected = sum((logits > value).int() for value in (-0.5, 0.5, 1.5))
    np.testing.assert_array_equal(counts, expected)
    assert counts.is_contiguous()
    np.testing.assert_array_equal(sam_ops.masks_of(counts), logits > 0.5)
    official = calculate_stability_score(logits, 0.5, 1.0)
    torch.testing.assert_close(sam_ops.stability(counts), official)


def test_a_mask_that_is_empty_at_both_thresholds_has_no_stability():
    assert sam_ops.stability_score(torch.full((1, 8, 8), -9.0), 0.0, 1.0).isnan().all()
