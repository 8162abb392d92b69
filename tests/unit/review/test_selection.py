"""Which images a review page shows, and in which order."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision
from salip_ray.review.selection import choose
from tests.unit.datasets.conftest import cell, save_decisions


def opened(output):
    return PseudoLabels(str(output), negatives=True)


def test_the_least_certain_comes_first_and_unlabelled_images_are_left_out(thorax):
    chosen = choose(opened(thorax), 200)
    assert [entry.confidence for entry in chosen] == pytest.approx([0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
    assert choose(opened(thorax), 2) == chosen[:2]


def test_decided_images_are_left_out(thorax):
    first, second, *_ = choose(opened(thorax), 200)
    save_decisions(
        thorax,
        {first.image_id: Decision("accepted"), second.image_id: Decision("accepted", (1,))},
    )
    shown = [entry.image_id for entry in choose(opened(thorax), 200)]
    assert first.image_id not in shown
    assert second.image_id in shown


def test_a_sample_follows_its_seed(thorax):
    one, same, other = (
        [entry.image_id for entry in choose(opened(thorax), 3, sample=True, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert one == same != other


def slices(volume, confidences):
    """Rows of a volume; a confidence of None is a slice without a label."""
    mask = np.zeros((8, 8), np.bool_)
    mask[2:5, 2:5] = True
    return [
        {
            "image_id": f"{volume}-{number}",
            "uri": f"/in/{volume}-{number}.png",
            "height": 8,
            "width": 8,
            "status": "empty" if confidence is None else "ok",
            "masks": [] if confidence is None else [cell("lungs", 1, mask, confidence)],
            "volume": volume,
            "slice": number,
        }
        for number, confidence in enumerate(confidences)
    ]


def test_a_volume_is_shown_completely_and_ranked_by_its_worst_slice(write_output):
    rows = [
        *slices("sure", [None, 0.9, 0.9]),
        *slices("unsure", [None, 0.8, 0.1, None]),
        *slices("nothing", [None, None]),
    ]
    labels = opened(write_output(rows[::-1]))
    ids = [entry.image_id for entry in choose(labels, 200)]
    assert ids == [*(f"unsure-{n}" for n in range(4)), *(f"sure-{n}" for n in range(3))]
    # One volume is shown, however large; another is never cut.
    assert len(choose(labels, 1)) == 4
    assert len(choose(labels, 6)) == 4
