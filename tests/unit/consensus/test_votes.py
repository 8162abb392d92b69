"""The vote of several masks of one class."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.consensus.votes import count_votes
from tests.unit.consensus.runs import block


def test_two_masks_agree_on_what_both_have():
    vote = count_votes([block((0, 4)), block((2, 6))])
    assert np.array_equal(vote.agreed, block((2, 4)))
    assert np.array_equal(vote.disputed, block((0, 2)) | block((4, 6)))
    assert vote.agreement == pytest.approx(0.5)


def test_two_of_three_are_a_majority_but_still_in_dispute():
    vote = count_votes([block((0, 4)), block((0, 4)), block((0, 2))])
    assert np.array_equal(vote.agreed, block((0, 4)))
    assert np.array_equal(vote.disputed, block((2, 4)))
    assert vote.agreement == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_half_of_the_masks_are_no_majority():
    votes = [block((0, 3)), block((0, 3)), block((3, 6)), block((3, 6))]
    assert not count_votes(votes).agreed.any()


def test_empty_masks_agree_with_each_other_and_with_nothing_else():
    nothing = block((0, 0))
    assert count_votes([nothing, nothing]).agreement == 1
    assert count_votes([block((0, 2)), nothing, nothing]).agreement == pytest.approx(1 / 3)


def test_many_masks_are_counted_without_overflow():
    vote = count_votes([block((0, 2))] * 300)
    assert np.array_equal(vote.agreed, block((0, 2)))
    assert not vote.disputed.any()
