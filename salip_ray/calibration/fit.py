"""Fit the expected Dice of one class to a few labels of known Dice, and measure the fit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from salip_ray.cascade.confidence import Calibration, fit
from salip_ray.evaluation.intervals import LEVEL, SEED
from salip_ray.output.calibration import FIGURES
from salip_ray.wording import counted

#: Fewer images, or volumes, say too little about others.
LEAST_IMAGES = 10
_PER_FIGURE = 10  # images for each figure of a fit
_FOLDS = 5
_RESAMPLES = 1000
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """A label of known Dice.

    Attributes:
        group: what it must not be parted from: its volume, or else its image.
        figures: those of :data:`~salip_ray.output.calibration.FIGURES`; NaN if unknown.
        dice: 0 to 1; 0 if the class is not in the image.
    """

    group: str
    figures: tuple[float, ...]
    dice: float


@dataclass(frozen=True)
class Figure:
    """A figure with its bootstrap interval over images or volumes; NaN if it is unknown."""

    value: float
    low: float
    high: float

    def to_json(self) -> list[float | None]:
        """Return value, low and high, rounded; null for NaN."""
        return [
            None if math.isnan(end) else round(end, 4) for end in (self.value, self.low, self.high)
        ]


@dataclass(frozen=True)
class Quality:
    """How well confidences predict the Dice of labels that they were not fitted on.

    Attributes:
        rho: Spearman's rank correlation with the Dice.
        error: mean absolute difference to the Dice.
        bias: mean difference to the Dice; above 0 if the confidence is too high.
    """

    rho: Figure
    error: Figure
    bias: Figure


@dataclass(frozen=True)
class Fit:
    """A fit, and its quality by cross-validation.

    Attributes:
        figures: names of the figures that it takes.
        model: maps them to the expected Dice.
        labels: number of labels that it was fitted on.
        groups: number of images or volumes that they are of.
        before: quality of the stored confidence on the same labels; None if there is none.
        after: quality of the fit on labels that were left out of it.
    """

    figures: tuple[str, ...]
    model: Calibration
    labels: int
    groups: int
    before: Quality | None
    after: Quality


def fit_class(examples: Sequence[Example]) -> Fit | None:
    """Fit the expected Dice of one class; None if that is not possible (:func:`why_no_fit`).

    A fit takes one figure for every ten images: the stored confidence first, if there is one. Then
    labels without a confidence are left out, if enough remain.
    """
    examples = _with_confidence(examples)
    groups = [example.group for example in examples]
    count = len(set(groups))
    values = np.array([example.figures for example in examples], np.float64)
    dice = np.array([example.dice for example in examples], np.float64)
    names = [
        number
        for number in range(len(FIGURES))
        if count and np.isfinite(values[:, number]).all() and np.ptp(values[:, number]) > 0
    ][: count // _PER_FIGURE]
    if count < LEAST_IMAGES or not names or np.ptp(dice) == 0:
        return None
    chosen = values[:, names]
    stored = values[:, 0]
    return Fit(
        figures=tuple(FIGURES[number] for number in names),
        model=fit(chosen, dice.tolist()),
        labels=len(examples),
        groups=count,
        before=quality(stored, dice, groups) if np.isfinite(stored).all() else None,
        after=quality(_left_out(chosen, dice, groups), dice, groups),
    )


def why_no_fit(examples: Sequence[Example]) -> str:
    """Return why :func:`fit_class` returns None."""
    count = len({example.group for example in examples})
    if count < LEAST_IMAGES:
        return (
            f"{counted(count, 'image')} with a label and a reference, {LEAST_IMAGES} are needed (a "
            "volume counts as one image)"
        )
    if len(known := {example.dice for example in _with_confidence(examples)}) == 1:
        return (
            f"all its labels have the Dice {known.pop():.3f}, so there is nothing to fit: check "
            "that the references show this class"
        )
    return "its labels have equal or unknown confidences, so there is nothing to fit"


def _with_confidence(examples: Sequence[Example]) -> Sequence[Example]:
    known = [example for example in examples if math.isfinite(example.figures[0])]
    return known if len({example.group for example in known}) >= LEAST_IMAGES else examples


def quality(expected: Values, dice: Values, groups: Sequence[str]) -> Quality:
    """Return how well expected figures fit the Dice, with intervals over groups."""
    members = [np.flatnonzero(np.array(groups) == group) for group in dict.fromkeys(groups)]
    rng = np.random.default_rng(SEED)
    samples = [
        np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        for _ in range(_RESAMPLES)
    ]

    def figure(of: Callable[[Values, Values], float]) -> Figure:
        resampled = [of(expected[rows], dice[rows]) for rows in samples]
        known = [value for value in resampled if not math.isnan(value)] or [math.nan]
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        return Figure(of(expected, dice), low, high)

    return Quality(
        rho=figure(_rho),
        error=figure(lambda one, other: float(np.abs(one - other).mean())),
        bias=figure(lambda one, other: float((one - other).mean())),
    )


def _rho(expected: Values, dice: Values) -> float:
    if np.ptp(expected) == 0 or np.ptp(dice) == 0:
        return math.nan
    return float(spearmanr(expected, dice).statistic)


def _left_out(values: Values, dice: Values, groups: Sequence[str]) -> Values:
    """Return the expected Dice of each label by a fit on the groups of other folds."""
    order = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).digest())
    fold_of = {group: number % _FOLDS for number, group in enumerate(order)}
    folds = np.array([fold_of[group] for group in groups])
    expected = np.zeros(len(dice))
    for fold in range(_FOLDS):
        rest, own = folds != fold, folds == fold
        model = fit(values[rest], dice[rest].tolist())
        expected[own] = [model(*row) for row in values[own]]
    return expected
