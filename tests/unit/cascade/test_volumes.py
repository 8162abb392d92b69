"""The best path through the slices of a volume, and masks between two slices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salip_ray.cascade.volumes import best_path, between

SHARES = st.floats(0, 1, width=32)


@st.composite
def stacks(draw):
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    scores = [np.array(draw(st.lists(SHARES, min_size=n, max_size=n))) for n in sizes]
    overlaps = [
        np.array(draw(st.lists(SHARES, min_size=a * b, max_size=a * b))).reshape(a, b)
        for a, b in itertools.pairwise(sizes)
    ]
    return scores, overlaps


def value(path, scores, overlaps, nothing, continuity):
    total = sum(nothing if at is None else own[at] for at, own in zip(path, scores, strict=True))
    for (one, other), overlap in zip(itertools.pairwise(path), overlaps, strict=True):
        if one is None or other is None:
            total += continuity * (one is other)
        else:
            total += continuity * overlap[one, other]
    return total


@settings(max_examples=40)
@given(stacks(), SHARES, st.floats(0, 2, width=32))
def test_no_other_path_is_better(stack, nothing, continuity):
    weights = (*stack, nothing, continuity)
    path = best_path(*stack, nothing=nothing, continuity=continuity)
    options = [[*range(len(own)), None] for own in stack[0]]
    best = max(value(other, *weights) for other in itertools.product(*options))
    assert value(path, *weights) == pytest.approx(best, abs=1e-6)


def test_without_continuity_each_slice_chooses_alone():
    scores = [np.array([0.2, 0.6]), np.array([]), np.array([0.4])]
    overlaps = [np.zeros((2, 0)), np.zeros((0, 1))]
    assert best_path(scores, overlaps, nothing=0.5, continuity=0.0) == [1, None, None]


def test_of_equal_labels_the_first_wins_and_nothing_comes_last():
    assert best_path([np.array([0.5, 0.5])], [], nothing=0.5, continuity=1.0) == [0]
    assert best_path([], [], nothing=0.5, continuity=1.0) == []


def test_overlaps_of_other_slices_are_refused():
    with pytest.raises(ValueError, match="2 slices need one overlap less, found 0"):
        best_path([np.array([0.1])] * 2, [], nothing=0.5, continuity=1.0)


def disc(radius, centre=20):
    rows, columns = np.mgrid[:40, :40]
    return np.hypot(rows - 20, columns - centre) < radius


def test_a_mask_between_two_has_a_size_and_a_place_between_theirs():
    middle = between(disc(6), disc(12), 0.5)
    assert middle.dtype == np.bool_
    assert np.count_nonzero(middle ^ disc(9)) < 0.06 * np.count_nonzero(disc(9))
    quarter = between(disc(6), disc(12), 0.25)
    assert np.count_nonzero(disc(6)) < np.count_nonzero(quarter) < np.count_nonzero(middle)
    moved = between(disc(8, 18), disc(8, 22), 0.5)
    assert np.count_nonzero(moved ^ disc(8)) < 0.15 * np.count_nonzero(disc(8))
