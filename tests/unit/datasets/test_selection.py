"""Limits, negatives and decisions choose the images that become training data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salip_ray.datasets.index import ClassFigures
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision
from salip_ray.datasets.selection import LabelLimits, describe_left_out
from salip_ray.errors import ConfigError, InputError
from salip_ray.output.masks import encode_png
from tests.unit.datasets.conftest import save_decisions


def names(labels):
    return [entry.uri.rpartition("/")[2] for entry in labels.entries]


def test_images_without_a_label_and_error_rows_are_counted(output):
    labels = PseudoLabels(str(output))
    assert labels.left_out == {"empty": 1, "error": 1}
    assert list(describe_left_out(labels.left_out)) == [
        "left out 1 image without labels because of an error (salip-ray errors lists the reasons)",
        "left out 1 image without a label (exports take those with --negatives)",
    ]


def test_negatives_have_an_empty_label_map_and_no_confidence(output):
    labels = PseudoLabels(str(output), negatives=True, min_confidence=0.6)
    assert names(labels)[-1] == "blank.png"
    assert labels.left_out == {"confidence": 2, "error": 1}
    entry = labels.entries[-1]
    assert math.isnan(entry.confidence)
    label_map = labels.label_map(entry)
    assert label_map.shape == (40, 56)
    assert not label_map.any()
    assert not labels.masks(entry)


def test_an_image_without_the_wanted_class_is_a_negative_of_it(output):
    hearts = PseudoLabels(str(output), classes=["heart"], negatives=True)
    assert names(hearts)[0] == "view0.png"  # has lungs alone
    assert not hearts.label_map(hearts.entries[0]).any()
    assert PseudoLabels(str(output), classes=["heart"]).left_out == {"empty": 2, "error": 1}


def test_low_presence_leaves_the_image_out(output):
    labels = PseudoLabels(str(output), min_presence=0.65)
    assert names(labels) == ["view0.png", "view2.png", "view3.png", "view5.png"]
    assert labels.left_out["presence"] == 2


@pytest.mark.parametrize("least", [350, 350 / (40 * 56)])
def test_small_labels_leave_the_image_out(output, least):
    labels = PseudoLabels(str(output), classes=["lung"], min_area=least)
    areas = [entry.figures["lung"].area for entry in labels.entries]
    assert labels.left_out["area"] == 6 - len(areas) > 0
    pixels = [entry.height * entry.width for entry in labels.entries]
    wanted = [least if least > 1 else least * n for n in pixels]
    assert all(area >= limit for area, limit in zip(areas, wanted, strict=True))


def test_unknown_figures_pass_no_limit_but_zero():
    unknown = ClassFigures(confidence=0.9)
    assert LabelLimits().failed_by(unknown, 100) is None
    assert LabelLimits(min_presence=0.1).failed_by(unknown, 100) == "presence"


def test_accepted_labels_pass_every_limit(output):
    entry = PseudoLabels(str(output)).entries[1]
    save_decisions(output, {entry.image_id: Decision("accepted")})
    labels = PseudoLabels(str(output), min_confidence=0.85, min_presence=0.85)
    assert names(labels) == ["view0.png", "view1.png", "view5.png"]


def test_a_confirmed_negative_needs_no_option(output):
    blank = PseudoLabels(str(output), negatives=True).entries[-1]
    save_decisions(output, {blank.image_id: Decision("accepted")})
    labels = PseudoLabels(str(output))
    assert names(labels)[-1] == "blank.png"
    assert labels.entries[-1].confidence == 1.0


def test_a_label_drawn_on_an_empty_image_counts(output):
    blank = PseudoLabels(str(output), negatives=True).entries[-1]
    drawn = np.zeros((40, 56), np.uint8)
    drawn[3:9, 3:9] = 2
    decision = Decision("corrected", values=(0, 2))
    save_decisions(output, {blank.image_id: decision}, {blank.image_id: encode_png(drawn)})
    labels = PseudoLabels(str(output))
    np.testing.assert_array_equal(labels.label_map(labels.entries[-1]), drawn)


def test_a_rejected_empty_label_is_no_negative(output):
    blank = PseudoLabels(str(output), negatives=True).entries[-1]
    save_decisions(output, {blank.image_id: Decision("rejected")})
    labels = PseudoLabels(str(output), negatives=True)
    assert "blank.png" not in names(labels)
    assert labels.left_out["rejected"] == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_presence": 2}, "min_presence must be within 0 and 1, found 2"),
        ({"min_area": -1}, "min_area must not be negative, found -1"),
    ],
)
def test_limits_out_of_range_are_refused(limits, message):
    with pytest.raises(ConfigError, match=message):
        LabelLimits(**limits)


def test_an_output_without_a_usable_label_explains_why(output):
    with pytest.raises(InputError) as caught:
        PseudoLabels(str(output), min_presence=1)
    assert "left out 6 images with a label whose presence is below the limit" in str(caught.value)
    assert "left out 1 image without a label" in str(caught.value)
