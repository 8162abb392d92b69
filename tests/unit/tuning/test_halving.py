"""Recipes advance by their scores, in whatever order their trials end."""

from __future__ import annotations

import math

import pytest

from salip_ray.tuning.halving import Standing, ranking, rungs, survivors


@pytest.mark.parametrize("images", [1, 2, 3, 4, 9, 20, 100])
def test_rungs_cover_all_images_in_order(images):
    steps = rungs(images)
    assert [index for step in steps for index in step] == list(range(images))
    assert all(len(step) for step in steps)
    assert [step.stop for step in rungs(20)] == [4, 7, 20]


def test_best_third_and_the_given_recipe_advance():
    standings = [Standing(n, [{"lungs": n / 10}]) for n in range(9)]
    assert survivors(standings) == [0, 6, 7, 8]
    assert survivors(standings[::-1]) == [0, 6, 7, 8]


def test_equal_recipes_rank_by_number_and_failed_ones_are_left_out():
    same = [Standing(n, [{"lungs": 0.5}]) for n in (3, 1, 2)]
    assert [s.number for s in ranking(same)] == [1, 2, 3]
    failed = [Standing(4, [{"lungs": 0.9}], error="it broke"), Standing(5, [{"lungs": math.nan}])]
    assert ranking([*same, *failed]) == ranking(same)
    assert math.isnan(failed[0].dice)


def test_dice_is_the_mean_over_images_and_classes_without_nan():
    both = Standing(0, [{"a": 1.0, "b": math.nan}, {"a": 0.5, "b": 0.0}])
    assert both.dice == pytest.approx(0.5)
