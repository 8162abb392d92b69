"""The confidence of a label: a fit that can be checked, and one that ships."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from salip_ray.cascade.confidence import FEATURES, calibration, fit


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


def test_what_ships_rises_with_each_feature_and_stays_within_0_and_1():
    model = calibration()
    middle = list(model.centre)
    for index in range(len(FEATURES)):
        low, high = list(middle), list(middle)
        low[index], high[index] = model.low[index], model.high[index]
        assert 0 <= model(*low) < model(*high) <= 1


def test_nothing_is_read_into_values_that_the_fit_never_saw():
    model = calibration()
    assert model(-1e9, -1e9, -1e9) == model(*model.low)
    assert model(2.0, 2.0, 2.0) == model(*model.high)


def test_a_missing_figure_counts_as_the_worst():
    model = calibration()
    assert model(0.9, math.nan, 0.9) == model(0.9, model.low[1], 0.9)


def test_json_keeps_the_model():
    model = calibration()
    data = json.loads(model.to_json({"fitted_on": "phantoms"}))
    assert data["features"] == list(FEATURES)
    assert data["weights"] == pytest.approx(model.weights)
