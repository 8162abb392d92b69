"""Recipes go on by what they are worth, and never by when they ended."""

from __future__ import annotations

import math

import pytest

from salip_ray.tuning.halving import Standing, ranking, rungs, survivors


@pytest.mark.parametrize("images", [1, 2, 3, 4, 9, 20, 100])
def test_rungs_add_up_to_all_images(images):
    steps = rungs(images)
    assert [place for step in steps for place in step] == list(range(images))
    assert all(len(step) for step in steps)
    assert [step.stop for step in rungs(20)] == [4, 7, 20]


def test_the_best_third_goes_on_and_so_does_what_was_given():
    standings = [Standing(n, [{"lungs": n / 10}]) for n in range(9)]
    assert survivors(standings) == [0, 6, 7, 8]
    assert survivors(standings[::-1]) == [0, 6, 7, 8]


def test_of_equal_ones_the_lower_number_is_better_and_what_failed_is_none():
    same = [Standing(n, [{"lungs": 0.5}]) for n in (3, 1, 2)]
    assert [s.number for s in ranking(same)] == [1, 2, 3]
    failed = [Standing(4, [{"lungs": 0.9}], error="it broke"), Standing(5, [{"lungs": math.nan}])]
    assert ranking([*same, *failed]) == ranking(same)
    assert math.isnan(failed[0].dice)


def test_a_standing_is_the_mean_over_images_and_classes_without_what_is_empty():
    both = Standing(0, [{"a": 1.0, "b": math.nan}, {"a": 0.5, "b": 0.0}])
    assert both.dice == pytest.approx(0.5)
