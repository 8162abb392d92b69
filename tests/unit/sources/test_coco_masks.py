"""Masks of COCO files: read as pycocotools does, and refused if it would read beyond their end."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.output.masks import decode_rle, encode_rle
from salip_ray.sources.coco_masks import coco_rle

SIZE = (6, 8)
MASK = np.zeros(SIZE, bool)
MASK[1:4, 2:7] = True


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 1])
def test_compressed_counts_are_those_of_pycocotools(share):
    rng = np.random.default_rng(5)
    for height, width in rng.integers(1, 400, (20, 2)).tolist():
        mask = rng.random((height, width)) < share
        mask[: height // 2] &= rng.random() < 0.5  # long runs, too
        assert coco_rle(encode_rle(mask), (height, width)) == encode_rle(mask)


def test_polygons_and_plain_counts_are_the_same_mask():
    flat = MASK.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff([0, *edges, flat.size]).tolist()
    assert coco_rle({"size": [6, 8], "counts": counts}, SIZE) == encode_rle(MASK)
    outline = coco_rle([[2, 1, 7, 1, 7, 4, 2, 4]], SIZE)
    assert np.array_equal(decode_rle(outline), MASK)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[0, 0, float("nan"), 0, 3, 3]], "far outside of its image: nan"),  # once a crash
        ([[0, 0, 1e9, 0, 3, 3]], "far outside of its image: 1e.09"),
        ([[0, 0, 3, 3]], "3 points or more"),
        ([[0, 0, 3, 0, 3, 3], [1, 1, 2, 2]], "3 points or more"),
        ([["a", 0, 3, 0, 3, 3]], "not of numbers"),
        ([0, 0, 3, 0, 3, 3], "3 points or more"),
        ([], "it has no mask"),
        (None, "it has no mask"),
        ({"size": [8, 6], "counts": [0, 48]}, "is of .8, 6., its image of .6, 8."),
        ({"counts": [0, 48]}, "is of None"),
        ({"size": [6, 8]}, "neither a text nor a list"),
        ({"size": [6, 8], "counts": [1.5, 46.5]}, "neither a text nor a list"),
        ({"size": [6, 8], "counts": [1, 2, 3]}, "not of 48 pixels"),  # once unset memory
        ({"size": [6, 8], "counts": [0, 4800]}, "not of 48 pixels"),
        ({"size": [6, 8], "counts": [-1, 49]}, "not of 48 pixels"),
        ({"size": [6, 8], "counts": encode_rle(MASK)["counts"][:-1]}, "not of 48 pixels"),
        ({"size": [6, 8], "counts": ""}, "damaged"),
        ({"size": [6, 8], "counts": "\u00e9"}, "damaged"),
        ({"size": [6, 8], "counts": "oooooooooooooo"}, "damaged"),
    ],
)
def test_a_mask_that_cannot_be_right_is_refused(segmentation, reason):
    with pytest.raises(ValueError, match=reason):
        coco_rle(segmentation, SIZE)
