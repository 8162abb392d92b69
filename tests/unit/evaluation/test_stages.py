"""Which stage lost the Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salip_ray.evaluation import score_rows
from salip_ray.evaluation.stages import count_failures, failed_stage
from salip_ray.output.masks import encode_rle

NAN = math.nan


@pytest.mark.parametrize(
    ("proposed", "picked", "refined", "stage"),
    [
        (0.95, 0.95, 0.9, ""),
        (0.2, 0.2, 0.9, ""),  # SAM's refinement made it good
        (0.95, 0.95, 0.3, "refine"),
        (NAN, 0.95, 0.3, "refine"),
        (0.95, 0.1, 0.2, "pick"),
        (0.95, NAN, 0.0, "pick"),  # nothing was picked
        (0.4, 0.3, 0.3, "proposal"),
        (NAN, 0.3, 0.3, "proposal_or_pick"),
    ],
)
def test_label_is_attributed_to_the_first_stage_below_good(proposed, picked, refined, stage):
    assert failed_stage(proposed, picked, refined) == stage


def test_rows_give_the_failed_stage():
    reference = np.zeros((10, 10), np.bool_)
    reference[:5] = True
    wrong = ~reference

    def cell(method, mask, proposed):
        masks = {"rle": encode_rle(mask), "proposed": encode_rle(proposed)}
        return {"method": method, "label": "lungs", **masks}

    row = {"image_id": "a", "uri": "/a.png", "height": 10, "width": 10, "status": "ok"}
    cells = [cell("cascade", wrong, wrong), cell("gt_sam", reference, reference)]
    evaluation = score_rows(
        [{**row, "masks": cells}],
        lambda uri: {"lungs": reference},
        labels=["lungs"],
        methods=["cascade", "gt_sam"],
    )
    (stage,) = evaluation.stages
    assert (stage.proposed, stage.picked, stage.refined, stage.failed) == (1.0, 0.0, 0.0, "pick")
    assert count_failures(evaluation.stages)["lungs"]["pick"] == 1


def test_rows_without_proposals_are_scored():
    reference = np.ones((4, 4), np.bool_)
    rle = encode_rle(~reference | np.eye(4, dtype=np.bool_))
    row = {"image_id": "a", "uri": "/a.png", "height": 4, "width": 4, "status": "ok"}
    mask = {"method": "cascade", "label": "lungs", "rle": rle}
    evaluation = score_rows(
        [{**row, "masks": [mask]}],
        lambda uri: {"lungs": reference},
        labels=["lungs"],
        methods=["cascade"],
    )
    assert math.isnan(evaluation.stages[0].picked)
    assert evaluation.stages[0].failed == "proposal_or_pick"


@pytest.mark.parametrize(("retrieved", "stage"), [(True, "empty"), (False, "pick")])
def test_class_left_empty_after_retrieval_is_not_called_a_wrong_pick(retrieved, stage):
    reference = np.ones((4, 4), np.bool_)
    rle = encode_rle(reference)
    row = {"image_id": "a", "uri": "/a.png", "height": 4, "width": 4, "status": "empty"}
    best = {"method": "gt_sam", "label": "lungs", "rle": rle, "proposed": rle}
    ranking = [{"label": "lungs", "retrieved": retrieved}]
    evaluation = score_rows(
        [{**row, "masks": [best], "ranking": ranking}],
        lambda uri: {"lungs": reference},
        labels=["lungs"],
        methods=["cascade", "gt_sam"],
    )
    assert evaluation.stages[0].failed == stage
