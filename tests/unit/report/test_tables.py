"""Tables for a terminal fit 80 columns and count what the means leave out."""

from __future__ import annotations

import math

import pytest
from rich.console import Console

from salip_ray.evaluation import Evaluation, Score, Unscored
from salip_ray.evaluation.stages import StageDice
from salip_ray.report.tables import (
    dice_table,
    image_table,
    notes,
    stage_table,
    summary_table,
    volume_table,
)


def score(image, method, dice, iou=0.0, label="lungs"):
    return Score(image, f"/in/{image}.png", label, method, dice, iou)


EVALUATION = Evaluation(
    scores=(
        score("a", "cascade", 0.9, 0.8),
        score("a", "unprompted_confident", 0.25, 0.2),
        score("a", "unprompted_largest", 0.5, 0.4),
        score("b", "cascade", math.nan, math.nan),
        score("b", "unprompted_confident", 0.0),
        score("b", "unprompted_largest", 0.0),
    ),
    unscored=(
        Unscored("c", "/in/c.png", "error", "cut off"),
        Unscored("d", "/in/d.png", "without_reference"),
    ),
    not_committed=7,
)


def text(table):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_headline_table_has_the_means():
    lines = text(dice_table(EVALUATION))
    assert "lungs 0.250 0.900 2" in lines


def test_headline_table_has_the_mean_over_the_classes_of_a_task():
    heart = Evaluation(
        (
            score("a", "cascade", 0.7, label="heart"),
            score("a", "unprompted_confident", 0.1, label="heart"),
        )
    )
    spleen = Evaluation((score("z", "cascade", 0.6, label="spleen"),))
    groups = {"chest": ["lungs", "heart"], "belly": ["spleen", "kidney"]}
    lines = text(dice_table(EVALUATION + heart + spleen, groups=groups))
    # The better un-prompted variant of each class: 0.25 (largest) and 0.1 (confident).
    assert lines[lines.index("heart 0.100 0.700 1") + 1] == "chest: mean 0.175 0.800"
    assert not any("belly" in line for line in lines)  # the kidney has no score


def test_means_count_their_images():
    lines = text(summary_table(EVALUATION))
    assert "lungs" in lines
    assert "cascade 0.900 - 0.800 - - 1 1" in lines
    assert "unprompted (largest) 0.250 0.000-0.500 0.200 - - 2 0" in lines


def test_each_image_has_a_line():
    lines = text(image_table(EVALUATION))
    assert "a.png lungs 0.900 0.250 0.500" in lines
    assert "b.png lungs - 0.000 0.000" in lines


def test_images_in_no_mean_are_counted():
    assert list(notes(EVALUATION)) == [
        "1 image in no mean: not labelled because of an error",
        "1 image in no mean: no reference mask",
        "7 images in no mean: not labelled yet (resume the label command)",
    ]
    assert list(notes(Evaluation(EVALUATION.scores))) == []


METHODS = ("cascade", "unprompted_confident", "unprompted_largest", "gt_sam")
LARGE = Evaluation(
    scores=tuple(
        Score(
            *(f"{number:032x}", f"/in/chest_xray_of_2024_{number:05d}.png", label, method),
            *(number / 1000, number / 2000, 123.456, 0.5),
            *(1, 1, 1, 1, f"{number // 10:032x}", number % 10),
        )
        for number in range(300)
        for label in ("left ventricle", "myocardium")
        for method in METHODS
    ),
    stages=tuple(
        StageDice("a", "/in/a.png", "left ventricle", 0.9, 0.5, 0.5, failed)
        for failed in ("proposal", "pick", "refine")
    ),
)


@pytest.mark.parametrize("make", [summary_table, image_table, volume_table, stage_table])
def test_tables_fit_80_columns_without_cutting_anything(make):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(make(LARGE))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in capture.get()
    assert any("left ventricle" in line for line in lines)


def test_the_worst_images_come_first():
    lines = text(image_table(LARGE, 20))
    assert lines[0] == ("Dice: the lowest 20 of 600 labels by cascade (--all prints the rest)")
    rows = [line for line in lines if "0.0" in line]
    assert len(rows) == 20
    dice = [float(row.split()[-1]) for row in rows]
    assert dice[0] == 0
    assert dice == sorted(dice)
    assert sum("0.2" in line for line in text(image_table(LARGE))) > 100


def test_hidden_names_are_short():
    score = Score("6d1f" * 8, f"id:{'6d1f' * 8}", "lungs", "cascade", 0.5, 0.4)
    assert "id:6d1f6d1f6d1f6 lungs 0.500" in text(image_table(Evaluation((score,))))
