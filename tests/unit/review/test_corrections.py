"""Decisions are counted by class and reason, with what corrections changed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision
from salip_ray.errors import InputError
from salip_ray.evaluation.overlap import dice
from salip_ray.output.masks import encode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.report.build import make_report
from salip_ray.review.corrections import count_decisions
from tests.unit.datasets.conftest import save_decisions


@pytest.fixture
def ids(thorax):
    return [entry.image_id for entry in PseudoLabels(str(thorax)).entries]


@pytest.fixture
def reviewed(thorax, ids, scene):
    """Accept, reject, correct a lung by two rows, erase a heart, and add one."""
    _, lung, heart = scene(2)
    lung[5:7] = False
    corrected = lung + 2 * heart.astype(np.uint8)
    erased = scene(3)[1].astype(np.uint8)
    added = scene(0)[1] + 2 * scene(0)[2].astype(np.uint8)
    save_decisions(
        thorax,
        {
            ids[1]: Decision("accepted"),
            ids[2]: Decision("corrected", (1,), values=(0, 1, 2), reason="too large"),
            ids[3]: Decision("corrected", (2,), values=(0, 1), reason="wrong structure"),
            ids[4]: Decision("rejected", reason="too large"),
            ids[0]: Decision("corrected", (2,), values=(0, 1, 2)),
        },
        {ids[2]: encode_png(corrected), ids[3]: encode_png(erased), ids[0]: encode_png(added)},
    )
    return thorax


def test_corrections_are_counted_with_their_dice(reviewed, scene):
    lungs, hearts = count_decisions(LabelOutput.open(str(reviewed)))
    assert lungs.verdicts == {"accepted": 1, "corrected": 1, "rejected": 1}
    assert hearts.verdicts == {"accepted": 1, "corrected": 2, "rejected": 1}
    assert lungs.reasons == {"too large": 2}
    assert hearts.reasons == {"wrong structure": 1, "too large": 1}
    before = scene(2)[1]
    after = before.copy()
    after[5:7] = False
    assert lungs.dice == [pytest.approx(dice(before, after))]
    assert sorted(hearts.dice) == [0.0, 0.0]  # one is erased, one is added
    assert lungs.median_dice == pytest.approx(dice(before, after))


def test_an_output_without_decisions_has_no_counts(thorax):
    assert count_decisions(LabelOutput.open(str(thorax))) == []
    assert "Decisions of people" not in make_report(str(thorax))


def test_marking_pixels_to_ignore_has_no_dice(thorax, ids, scene):
    label_map = np.zeros(scene(1)[1].shape, np.uint8)
    label_map[:3] = 255
    only = {ids[0]: Decision("corrected", (2,), values=(0, 255))}
    save_decisions(thorax, only, {ids[0]: encode_png(label_map[:40])})
    _, hearts = count_decisions(LabelOutput.open(str(thorax)))
    assert math.isnan(hearts.dice[0])
    assert math.isnan(hearts.median_dice)


def test_the_report_shows_decisions(reviewed):
    text = make_report(str(reviewed))
    assert "Decisions of people" in text
    assert "too large 2" in text


def test_only_what_people_accepted_or_corrected_is_used(reviewed, ids):
    labels = PseudoLabels(str(reviewed), reviewed=True)
    assert [entry.image_id for entry in labels.entries] == [ids[1]]
    assert labels.left_out["unreviewed"] == 4  # of some, one class is undecided
    lungs = PseudoLabels(str(reviewed), reviewed=True, classes=["lung"])
    assert {entry.image_id for entry in lungs.entries} == {ids[1], ids[2]}


def test_an_image_with_a_rejected_class_is_no_reviewed_image(thorax, ids):
    from salip_ray.datasets.reviews import Reviews
    from salip_ray.output.store import Store

    both = [Decision("accepted", (1,)), Decision("rejected", (2,))]
    Reviews.of(LabelOutput.open(str(thorax))).save(Store(str(thorax)), {ids[1]: both}, {})
    with pytest.raises(InputError, match="left out 1 image rejected by a reviewer"):
        PseudoLabels(str(thorax), reviewed=True)
