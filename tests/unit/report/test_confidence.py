"""Confidence: an order that follows what the models say, and a calibrated column before all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salip_ray.report.confidence import confidence

BASE = {"clip_margin": [1.0], "predicted_iou": [0.8], "stability_score": [0.8]}


@pytest.mark.parametrize("name", BASE)
def test_confidence_grows_with_every_score(name):
    more = {**BASE, name: [BASE[name][0] + 0.1]}
    assert confidence(more)[0] > confidence(BASE)[0]


def test_confidence_is_between_0_and_1():
    wild = {"clip_margin": [-5.0, 90.0], "predicted_iou": [-0.2, 1.3], "stability_score": [0, 1.0]}
    assert ((confidence(wild) >= 0) & (confidence(wild) <= 1)).all()


def test_unknown_scores_are_left_out():
    got = confidence({**BASE, "clip_margin": [math.nan]})[0]
    assert got == pytest.approx(0.8)
    assert math.isnan(confidence({name: [math.nan] for name in BASE})[0])


def test_confidence_of_the_row_is_preferred():
    own = {name: [*values, *values] for name, values in BASE.items()}
    got = confidence({**own, "confidence": [0.25, math.nan]})
    assert got[0] == 0.25
    assert got[1] == confidence(BASE)[0]
    assert np.isfinite(got).all()
