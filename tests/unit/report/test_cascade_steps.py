"""The steps of the cascade as a picture: retrieved crops have a frame, boxes lie on the label."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from salip_ray.cascade.cascade import CascadeResult
from salip_ray.report.cascade_steps import CascadeSteps, draw_steps
from salip_ray.schema import Candidate, ClassMask, ClipScores, Outcome, Selection

TEAL, BLUE = (38, 190, 166), (90, 150, 245)
LABELS = ["left", "right"]


def steps(scores, chosen=()) -> CascadeSteps:
    """A grey image of 60 x 90 with candidates side by side, on a working image half as large."""
    image = np.full((60, 90, 3), 128, np.uint8)
    working = image[::2, ::2]
    candidates, masks = [], []
    for number in range(len(scores)):
        mask = np.zeros(working.shape[:2], np.bool_)
        x = 4 * number
        mask[5:25, x : x + 4] = True
        box = (float(x), 5.0, float(x + 3), 24.0)
        candidates.append(Candidate(number, mask, 80, box, 0.9, 0.9, (x, 5.0), (0, 0, 44, 29)))
    selections = [
        Selection(LABELS[k], k + 1, c, 0, ClipScores(float(scores[c][k]), 1.0))
        for k, c in enumerate(chosen)
    ]
    for pick in selections:
        full = np.repeat(np.repeat(candidates[pick.candidate_id].mask, 2, 0), 2, 1)
        box = candidates[pick.candidate_id].box
        masks.append(
            ClassMask(
                "cascade",
                pick.label,
                pick.class_id,
                full,
                candidate_ids=(pick.candidate_id,),
                prompt_boxes=(box,),
            )
        )
    outcomes = [Outcome(label, "empty", "SAM proposed no candidate") for label in LABELS]
    result = CascadeResult(
        60,
        90,
        tuple(candidates),
        len(candidates) + 2,
        tuple(selections),
        tuple(masks),
        () if masks else tuple(outcomes),
    )
    crops = [working[5:25, 4 * n : 4 * n + 4] for n in range(len(scores))]
    return CascadeSteps(image, working, result, np.array(scores, np.float32).reshape(-1, 2), crops)


def draw(tmp_path, made: CascadeSteps):
    path = tmp_path / "new" / "steps.png"
    draw_steps(made, LABELS, "a title", path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def pixels_of(picture, colour):
    """Return the columns and rows of a colour."""
    rows, columns = np.nonzero(np.abs(picture - np.array(colour)).max(axis=2) <= 10)
    return columns, rows


def test_the_retrieved_crop_of_each_class_is_framed_at_its_rank(tmp_path):
    made = steps([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]], chosen=(1, 0))
    picture = draw(tmp_path, made)
    strips = picture[420:]
    # Candidate 1 is second of its class, candidate 0 first of the other.
    for colour, rank in ((TEAL, 1), (BLUE, 0)):
        columns, _ = pixels_of(strips, colour)
        left = 28 + rank * 137
        assert abs(columns.min() - left) <= 2
        assert abs(columns.max() - (left + 120)) <= 2


def test_a_box_lies_where_the_label_is(tmp_path):
    picture = draw(tmp_path, steps([[5.0, 0.0], [0.0, 0.0]], chosen=(0,)))[:400]
    boxes, label = picture[:, 644:936], picture[:, 952:1244]
    (bx, by), (lx, ly) = pixels_of(boxes, TEAL), pixels_of(label, TEAL)
    assert [abs(int(a) - int(b)) <= 3 for a, b in ((bx.min(), lx.min()), (bx.max(), lx.max()))]
    assert abs(int(by.min()) - int(ly.min())) <= 3
    assert abs(int(by.max()) - int(ly.max())) <= 3


def test_retrieved_crop_of_low_rank_is_shown(tmp_path):
    scores = [[float(20 - n), 0.0] for n in range(11)]
    columns, _ = pixels_of(draw(tmp_path, steps(scores, chosen=(10,)))[420:], TEAL)
    assert columns.min() > 1100


@pytest.mark.parametrize("n", [0, 1])
def test_few_candidates_are_drawn(tmp_path, n):
    picture = draw(tmp_path, steps([[1.0, 1.0]] * n))
    assert picture.shape[1] == 1272
    assert len(pixels_of(picture, TEAL)[0]) == 0 or n
