"""The confidence of a label: a fit that can be checked, and one that ships."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from salip_ray.cascade.confidence import (
    FEATURES,
    PRESENCE_FEATURES,
    calibration,
    expected_dice,
    fit,
    to_json,
)
from salip_ray.schema import ClipScores


def test_a_fit_finds_the_model_that_made_the_data():
    rng = np.random.default_rng(3)
    features = rng.uniform(0.5, 1.0, (500, 3))
    truth = 1 / (1 + np.exp(-(-6 + 4 * features[:, 0] + 6 * features[:, 1])))
    model = fit(features, truth.tolist())
    calibrated = [model(*row) for row in features]
    assert np.abs(np.array(calibrated) - truth).max() < 0.05
    assert abs(model.weights[2]) < 0.1 * model.weights[1]


def test_no_feature_speaks_against_a_label():
    rng = np.random.default_rng(3)
    features = rng.uniform(0.5, 1.0, (500, 3))
    truth = 1 / (1 + np.exp(-(4 * features[:, 0] - 6 * features[:, 2])))
    model = fit(features, truth.tolist())
    assert model(0.7, 0.7, 0.6) < model(0.7, 0.7, 0.9)
    assert model(0.6, 0.7, 0.7) < model(0.9, 0.7, 0.7)


def test_weight_counts_a_label_as_often():
    rng = np.random.default_rng(3)
    features = rng.uniform(0.5, 1.0, (60, 3))
    truth = rng.uniform(0, 1, 60)
    doubled = fit(np.vstack([features, features[:20]]), [*truth, *truth[:20]])
    weighted = fit(features, truth.tolist(), [2.0] * 20 + [1.0] * 40)
    # Centre and scale are those of the rows, so the parameters differ and the estimates do not.
    for row in features:
        assert weighted(*row) == pytest.approx(doubled(*row), abs=2e-3)


@pytest.mark.parametrize("name", ["outline", "presence"])
def test_what_ships_rises_with_each_feature_and_stays_within_0_and_1(name):
    model = calibration(name)
    middle = list(model.centre)
    assert len(middle) == len(FEATURES if name == "outline" else PRESENCE_FEATURES)
    for index in range(len(middle)):
        low, high = list(middle), list(middle)
        low[index], high[index] = model.low[index], model.high[index]
        assert 0 <= model(*low) < model(*high) <= 1


def test_confidence_is_clamped_to_fitted_range():
    model = calibration("outline")
    assert model(-1e9, -1e9, -1e9) == model(*model.low)
    assert model(2.0, 2.0, 2.0) == model(*model.high)


def test_a_missing_figure_counts_as_the_worst():
    model = calibration("outline")
    assert model(0.9, math.nan, 0.9) == model(0.9, model.low[1], 0.9)


def test_good_outline_of_an_absent_organ_is_not_trusted():
    outline = (0.95, 0.95, 0.99)
    absent = expected_dice(*outline, [ClipScores(20.0, presence=0.3, evidence=0.05)])
    there = expected_dice(*outline, [ClipScores(20.0, presence=0.95, evidence=0.95)])
    assert absent < 0.5 < 0.85 < there


def test_evidence_of_several_candidates_is_their_mean():
    outline = (0.9, 0.9, 0.98)
    two = [ClipScores(20.0, presence=0.8, evidence=e) for e in (0.4, 0.8)]
    one = [ClipScores(20.0, presence=0.8, evidence=0.6)]
    assert expected_dice(*outline, two) == pytest.approx(expected_dice(*outline, one))


@pytest.mark.parametrize(
    "scores", [[], [ClipScores(20.0)], [ClipScores(20.0, presence=0.1)]], ids=str
)
def test_without_evidence_only_the_outline_counts(scores):
    outline = (0.9, 0.9, 0.98)
    assert expected_dice(*outline, scores) == calibration("outline")(*outline)


def test_json_keeps_the_models():
    models = {name: calibration(name) for name in ("outline", "presence")}
    data = json.loads(to_json(models, {"fitted_on": "phantoms"}))
    assert data["about"] == {"fitted_on": "phantoms"}
    for name, features in (("outline", FEATURES), ("presence", PRESENCE_FEATURES)):
        assert data[name]["features"] == list(features)
        assert data[name]["weights"] == pytest.approx(models[name].weights)
