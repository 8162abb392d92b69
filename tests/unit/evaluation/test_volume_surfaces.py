"""HD95 and NSD of volumes in millimetres."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salip_ray.evaluation.volume_surfaces import SurfaceCollector, surface_figures
from salip_ray.output.masks import encode_rle

SPACING = (3.0, 1.0, 0.5)

# Seed -> HD95, and NSD at 2 and 1 mm, by MONAI 1.6 with this spacing.
OF_MONAI = {
    0: (3.1622776985168457, 0.7538605332374573, 0.6364061832427979),
    1: (4.1768951416015625, 0.766643762588501, 0.6163349151611328),
    2: (3.0, 0.8884050250053406, 0.796407163143158),
    3: (4.0, 0.7702834606170654, 0.531769335269928),
}


def two_ellipsoids(seed):
    """Two overlapping ellipsoids of 12 slices of 40 x 50 pixels, the first one with holes."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[:12, :40, :50]
    centre, radii = rng.uniform(4, [8, 36, 46]), rng.uniform([2, 5, 5], [5, 15, 20])

    def ellipsoid(shift, stretch):
        parts = (
            ((axis - c - s) / (r * t)) ** 2
            for axis, c, s, r, t in zip(grid, centre, shift, radii, stretch, strict=True)
        )
        return sum(parts) < 1

    one = ellipsoid(np.zeros(3), np.ones(3)) & (rng.random((12, 40, 50)) < 0.95)
    return one, ellipsoid(rng.uniform(-3, 3, 3), rng.uniform(0.8, 1.2, 3))


def figures(one, other, **more):
    return surface_figures([*map(encode_rle, one)], [*map(encode_rle, other)], SPACING, **more)


@pytest.mark.parametrize("seed", OF_MONAI)
def test_figures_equal_those_of_monai(seed):
    one, other = two_ellipsoids(seed)
    hd95, nsd = figures(one, other)
    measured = (hd95, nsd, figures(one, other, tolerance=1.0)[1])
    assert measured == pytest.approx(OF_MONAI[seed], rel=1e-6, abs=1e-6)


def test_slices_count_by_their_distance_in_millimetres():
    block = np.zeros((6, 8, 8), bool)
    block[1:4, 2:6, 2:6] = True
    higher, wider = np.roll(block, 1, axis=0), np.roll(block, 1, axis=2)
    assert figures(block, higher)[0] == 3.0
    assert figures(block, wider)[0] == 0.5
    assert figures(block, wider)[1] == 1.0  # within 2 mm


def test_empty_masks_have_no_distance():
    block, nothing = np.ones((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    assert np.isnan(figures(nothing, nothing)).all()
    hd95, nsd = figures(block, nothing)
    assert math.isnan(hd95)
    assert nsd == 0.0


def test_a_volume_is_measured_when_its_last_slice_has_come():
    block = np.ones((4, 4), bool)
    collector = SurfaceCollector({"v": 2, "short": 3})
    for number, volume in ((1, "v"), (0, "short"), (0, "v"), (1, "short")):
        row = {"volume": volume, "slice": number, "spacing": [1.0, 1.0]}
        collector.add(row, "organ", "cascade", (block, block), 2.0)
    (only,) = collector.figures
    assert (only.volume, only.hd95_mm, only.nsd_mm) == ("v", 0.0, 1.0)


@pytest.mark.parametrize("unknown", ["spacing", "distance"])
def test_a_volume_without_millimetres_has_no_figures(unknown):
    block = np.ones((4, 4), bool)
    collector = SurfaceCollector({"v": 1})
    spacing = None if unknown == "spacing" else [1.0, 1.0]
    row = {"volume": "v", "slice": 0, "spacing": spacing}
    distance = None if unknown == "distance" else 2.0
    collector.add(row, "organ", "cascade", (block, block), distance)
    assert collector.figures == []
