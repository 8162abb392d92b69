"""Tables for a terminal: all figures there, and what the means leave out said."""

from __future__ import annotations

import math

from rich.console import Console

from salip_ray.evaluation import Evaluation, Score, Unscored
from salip_ray.report.tables import dice_table, image_table, notes, summary_table


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
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_the_headline_table():
    lines = text(dice_table(EVALUATION))
    assert "lungs 0.250 0.900 2" in lines


def test_means_say_how_many_images_they_are_made_of():
    lines = text(summary_table(EVALUATION))
    assert "lungs cascade 0.900 - 0.800 - - 1 1" in lines
    assert "unprompted (= unprompted_largest) 0.250 0.000 to 0.500 0.200 - - 2 0" in lines


def test_each_image_has_a_line():
    lines = text(image_table(EVALUATION))
    assert "a.png lungs 0.900 / 0.800 0.250 / 0.200 0.500 / 0.400" in lines
    assert "b.png lungs - / - 0.000 / 0.000 0.000 / 0.000" in lines


def test_what_the_means_do_not_say():
    assert list(notes(EVALUATION)) == [
        "1 images are error rows and count in no mean",
        "1 images have no reference mask and count in no mean",
        "7 images are not labelled yet: the run is not finished",
    ]
    assert list(notes(Evaluation(EVALUATION.scores))) == []
