"""Fit confidences to a few labels of known Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salip_ray.calibration.fit import Example, fit_class, quality, why_no_fit

UNKNOWN = (math.nan, math.nan, math.nan)


def examples(count, *, groups=None, seed=0):
    """Labels whose Dice is their confidence, minus a quarter, with noise."""
    rng = np.random.default_rng(seed)
    stored = rng.uniform(0.5, 1, count)
    dice = np.clip(stored - 0.25 + rng.normal(0, 0.02, count), 0, 1)
    return [
        Example(f"g{n % (groups or count)}", (c, *UNKNOWN), d)
        for n, (c, d) in enumerate(zip(stored.tolist(), dice.tolist(), strict=True))
    ]


def test_a_confidence_that_is_too_high_is_corrected():
    fit = fit_class(examples(40))
    assert fit.figures == ("confidence",)
    assert fit.before.bias.value == pytest.approx(0.25, abs=0.02)
    assert abs(fit.after.bias.value) < 0.02
    assert fit.after.error.high < fit.before.error.low
    assert fit.model(0.8) == pytest.approx(0.55, abs=0.03)
    assert fit.after.rho.low > 0.9


def test_figures_of_left_out_labels_do_not_come_from_a_fit_that_saw_them():
    # The Dice has nothing to do with the confidence: a fit that saw the label would look good.
    rng = np.random.default_rng(1)
    noise = [
        Example(str(n), (float(c), *rng.uniform(0, 1, 3).tolist()), float(d))
        for n, (c, d) in enumerate(rng.uniform(0, 1, (40, 2)))
    ]
    fit = fit_class(noise)
    assert len(fit.figures) == 4
    assert fit.after.rho.low < 0
    assert fit.after.rho.value < 0.3


@pytest.mark.parametrize(("count", "groups"), [(0, None), (9, None), (40, 9)])
def test_too_few_images_or_volumes_are_refused(count, groups):
    assert fit_class(examples(count, groups=groups)) is None


def test_ten_images_are_enough_for_one_figure():
    ten = [Example(e.group, (e.figures[0], *e.figures[:1] * 3), e.dice) for e in examples(10)]
    assert fit_class(ten).figures == ("confidence",)


def test_labels_without_a_stored_confidence_use_other_figures():
    prompted = [Example(e.group, (math.nan, *e.figures[:1] * 3), e.dice) for e in examples(20)]
    fit = fit_class(prompted)
    assert fit.figures == ("agreement", "predicted_iou")
    assert fit.before is None


def test_equal_confidences_cannot_be_fitted():
    assert fit_class([Example(str(n), (0.5, *UNKNOWN), n / 20) for n in range(20)]) is None


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_labels_of_one_dice_cannot_be_fitted(dice):
    same = [Example(e.group, e.figures, dice) for e in examples(20)]
    assert fit_class(same) is None
    assert f"all its labels have the Dice {dice:.3f}" in why_no_fit(same)


def test_a_label_without_confidence_does_not_prevent_a_fit():
    given = examples(20)
    given[3] = Example("g3", (math.nan, *UNKNOWN), 0.9)
    fit = fit_class(given)
    assert (fit.figures, fit.labels) == (("confidence",), 19)
    unknown = [Example(e.group, (math.nan, *UNKNOWN), e.dice) for e in given]
    assert fit_class(unknown) is None
    assert "equal or unknown confidences" in why_no_fit(unknown)


def test_intervals_resample_volumes_as_one():
    twenty = examples(20)
    repeated = [Example(e.group, e.figures, e.dice) for e in twenty for _ in range(10)]
    arrays = [
        (np.array([e.figures[0] for e in of]), np.array([e.dice for e in of]))
        for of in (twenty, repeated)
    ]
    one, many = (
        quality(*pair, [e.group for e in of]).error
        for pair, of in zip(arrays, (twenty, repeated), strict=True)
    )
    assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high))
