"""Scoring rows: what counts, what is left out of a mean, and that no image gets lost."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from salip_ray.errors import InputError
from salip_ray.evaluation import Evaluation, as_json, score_rows
from salip_ray.output.masks import encode_rle

LEFT = np.array([[1, 1, 0, 0]] * 3, np.bool_)
RIGHT = ~LEFT
ALL = np.ones((3, 4), np.bool_)
NONE = np.zeros((3, 4), np.bool_)


def row(name, masks=(), status="ok", error=None):
    """A row as Parquet gives it back; ``masks`` are (method, label, mask)."""
    failed = status == "error"
    return {
        "image_id": f"id-{name}",
        "uri": f"/in/{name}.png",
        "height": None if failed else 3,
        "width": None if failed else 4,
        "status": status,
        "error": error,
        "masks": None
        if failed
        else [{"method": m, "label": c, "rle": encode_rle(mask)} for m, c, mask in masks],
    }


def references(**masks):
    return lambda row: masks.get(row["uri"].removeprefix("/in/").removesuffix(".png"))


def test_mean_is_over_images():
    rows = [
        row("a", [("cascade", "lungs", LEFT)]),
        row("b", [("cascade", "lungs", ALL)]),
    ]
    evaluation = score_rows(
        rows,
        references(a={"lungs": LEFT}, b={"lungs": LEFT}),
        labels=["lungs"],
        methods=["cascade"],
    )
    assert [(s.image_id, s.dice, s.iou) for s in evaluation.scores] == [
        ("id-a", 1.0, 1.0),
        ("id-b", pytest.approx(2 / 3), 0.5),
    ]
    mean = evaluation.averages()["lungs"]["cascade"]
    assert (mean.dice, mean.iou, mean.n, mean.empty) == (pytest.approx(5 / 6), 0.75, 2, 0)


def test_missing_label_scores_zero():
    evaluation = score_rows(
        [row("a", status="empty"), row("b", [("cascade", "lungs", LEFT)])],
        references(a={"lungs": LEFT}, b={"lungs": LEFT}),
        labels=["lungs"],
        methods=["cascade"],
    )
    assert [s.dice for s in evaluation.scores] == [0.0, 1.0]
    assert evaluation.averages()["lungs"]["cascade"].dice == 0.5


def test_image_with_both_empty_is_in_no_mean():
    evaluation = score_rows(
        [row("a", status="empty"), row("b", [("cascade", "lungs", LEFT)])],
        references(a={"lungs": NONE}, b={"lungs": LEFT}),
        labels=["lungs"],
        methods=["cascade"],
    )
    mean = evaluation.averages()["lungs"]["cascade"]
    assert (mean.dice, mean.n, mean.empty) == (1.0, 1, 1)


def test_mean_over_no_image_is_null_in_json():
    evaluation = score_rows(
        [row("a", status="empty")],
        references(a={"lungs": NONE}),
        labels=["lungs"],
        methods=["cascade"],
    )
    data = json.loads(as_json(evaluation))
    mean = data["classes"]["lungs"]["cascade"]
    assert mean.items() >= {"dice": None, "iou": None, "n": 0, "empty": 1}.items()
    assert data["images"][0]["dice"] is None


def test_unprompted_is_the_better_of_its_variants_per_class():
    methods = ["unprompted_confident", "unprompted_largest"]
    rows = [
        row(
            "a",
            [
                ("unprompted_confident", "left", LEFT),
                ("unprompted_largest", "left", ALL),
                ("unprompted_confident", "all", LEFT),
                ("unprompted_largest", "all", ALL),
            ],
        )
    ]
    means = score_rows(
        rows, references(a={"left": LEFT, "all": ALL}), labels=["left", "all"], methods=methods
    ).averages()
    assert means["left"]["unprompted"].variant == "unprompted_confident"
    assert means["all"]["unprompted"].variant == "unprompted_largest"
    assert means["left"]["unprompted"].dice == means["all"]["unprompted"].dice == 1.0


def test_better_variant_is_chosen_by_the_mean():
    confident, largest = "unprompted_confident", "unprompted_largest"
    rows = [
        row("a", [(confident, "lungs", LEFT), (largest, "lungs", ALL)]),
        row("b", [(confident, "lungs", RIGHT), (largest, "lungs", ALL)]),
    ]
    mean = score_rows(
        rows,
        references(a={"lungs": LEFT}, b={"lungs": LEFT}),
        labels=["lungs"],
        methods=[confident, largest],
    ).averages()["lungs"]["unprompted"]
    assert (mean.variant, mean.dice) == (largest, pytest.approx(2 / 3))


def test_images_that_cannot_be_scored_are_listed():
    rows = [
        row("broken", status="error", error={"stage": "decode", "type": "X", "message": "cut off"}),
        row("new", [("cascade", "lungs", LEFT)]),
        row("a", [("cascade", "lungs", LEFT)]),
    ]
    evaluation = score_rows(
        rows, references(a={"lungs": LEFT}), labels=["lungs"], methods=["cascade"]
    )
    data = json.loads(as_json(evaluation))
    assert (data["errors"], data["without_reference"]) == (1, 1)
    assert [(item["image_id"], item["reason"]) for item in data["unscored"]] == [
        ("id-broken", "error"),
        ("id-new", "without_reference"),
    ]
    assert data["unscored"][0]["message"] == "cut off"
    assert data["classes"]["lungs"]["cascade"]["n"] == 1


def test_a_reference_of_another_size_names_the_image():
    with pytest.raises(InputError, match=r"/in/a\.png is 4 x 3 .*image is 3 x 4"):
        score_rows(
            [row("a")], references(a={"lungs": LEFT.T}), labels=["lungs"], methods=["cascade"]
        )


def test_json_has_all_sections():
    rows = [row("a", [("cascade", "fetal head", LEFT)])]
    evaluation = score_rows(
        rows, references(a={"fetal head": ALL}), labels=["fetal head"], methods=["cascade"]
    )
    text = as_json(evaluation)
    assert json.loads(text) == {
        "schema_version": 1,
        "classes": {
            "fetal head": {
                "cascade": {
                    "dice": pytest.approx(2 / 3),
                    "iou": 0.5,
                    "n": 1,
                    "empty": 0,
                    "dice_interval": None,
                    "hd95": 2.0,
                    "nsd": 1.0,
                    "n_surface": 1,
                }
            }
        },
        "errors": 0,
        "without_reference": 0,
        "tuned_on": 0,
        "calibrated_on": 0,
        "not_committed": 0,
        "unscored": [],
        "images": [
            {
                "image_id": "id-a",
                "uri": "/in/a.png",
                "label": "fetal head",
                "method": "cascade",
                "dice": pytest.approx(2 / 3),
                "iou": 0.5,
                "hd95": 2.0,
                "nsd": 1.0,
                "tp": 6,
                "fp": 0,
                "fn": 6,
                "tn": 0,
                "volume": None,
                "slice": None,
            }
        ],
        "volumes": [],
        "stages": {
            "fetal head": {
                "n": 1,
                "good_dice": 0.8,
                "proposed": None,
                "picked": None,
                "refined": pytest.approx(2 / 3),
                "failed": {
                    "proposal": 0,
                    "pick": 0,
                    "refine": 0,
                    "empty": 0,
                    "proposal_or_pick": 1,
                },
            }
        },
        "walks": [
            {
                "image_id": "id-a",
                "uri": "/in/a.png",
                "label": "fetal head",
                "proposed": None,
                "picked": None,
                "refined": pytest.approx(2 / 3),
                "failed": "proposal_or_pick",
            }
        ],
        "instances": {
            "fetal head": {
                "cascade": {
                    "f1": 0.0,
                    "pq": 0.0,
                    "labelled": 1,
                    "reference": 1,
                    "matched": 0,
                    "images": 1,
                    "f1_interval": None,
                    "pq_interval": None,
                }
            }
        },
        "objects": [
            {
                "image_id": "id-a",
                "uri": "/in/a.png",
                "label": "fetal head",
                "method": "cascade",
                "labelled": 1,
                "reference": 1,
                "matched": 0,
                "iou": 0.0,
                "volume": None,
                "slice": None,
            }
        ],
        "match_iou": 0.5,
        "interval": {"level": 0.95, "resamples": 2000, "seed": 20240406},
        "nsd_tolerance_px": 2.0,
        "nsd_tolerance_mm": 2.0,
    }


def test_evaluations_add_up():
    def one(label):
        return score_rows(
            [row("a", [("cascade", label, LEFT)]), row("b")],
            references(a={label: LEFT}),
            labels=[label],
            methods=["cascade"],
        )

    both = one("lungs") + one("brain") + Evaluation((), not_committed=3)
    assert list(both.averages()) == ["lungs", "brain"]
    assert (len(both.unscored), both.not_committed) == (2, 3)
    assert not any(math.isnan(score.dice) for score in both.scores)
