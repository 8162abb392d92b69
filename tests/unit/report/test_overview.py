"""The overview picture: its size, and that the right things are drawn in the right places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from salip_ray.report.canvas import CLASS_COLOURS
from salip_ray.report.overview import Band, Panel, overview

NAMES = {"unprompted": "un-prompted SAM", "cascade": "cascade", "gt_sam": "GT-SAM"}


def panel(height: int, width: int, masks: dict[str, np.ndarray]) -> Panel:
    reference = np.zeros((height, width), np.bool_)
    reference[height // 4 : -height // 4, width // 4 : -width // 4] = True
    return Panel(
        image=np.full((height, width, 3), 90, np.uint8),
        references=[reference],
        masks={name: [mask] for name, mask in masks.items()},
        dice=dict.fromkeys(masks, 0.5),
    )


def draw(tmp_path, panels, methods=("cascade",)):
    band = Band(["lungs"], "phantoms", panels, dict.fromkeys(methods, 0.5), 20)
    path = tmp_path / "overview.png"
    overview([band], path, method_names=NAMES, heading="A heading")
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def count(picture, colour, tolerance=12):
    return int((np.abs(picture - np.array(colour)).max(axis=2) <= tolerance).sum())


TINTED = np.round(np.array([90, 90, 90]) * 0.62 + np.array([38, 190, 166]) * 0.38)


def test_the_mask_is_tinted_over_its_share_of_the_picture(tmp_path):
    half = np.zeros((60, 80), np.bool_)
    half[:, :40] = True
    full = np.ones((60, 80), np.bool_)
    some = count(draw(tmp_path, [panel(60, 80, {"cascade": half})]), TINTED)
    most = count(draw(tmp_path, [panel(60, 80, {"cascade": full})]), TINTED)
    # Outlines, of another colour, take a little of each.
    assert some == pytest.approx(most / 2, rel=0.06)


def test_missing_mask_shows_only_the_reference(tmp_path):
    picture = draw(tmp_path, [panel(60, 80, {})])
    assert count(picture, TINTED) == 0
    assert count(picture, (255, 214, 64), tolerance=30) > 100


def test_only_methods_of_the_run_have_a_column(tmp_path):
    full = np.ones((60, 80), np.bool_)
    narrow = draw(tmp_path, [panel(60, 80, {"cascade": full})])
    wide = draw(
        tmp_path,
        [panel(60, 80, {"cascade": full, "gt_sam": full})],
        methods=("cascade", "gt_sam"),
    )
    assert wide.shape[1] > narrow.shape[1]


@pytest.mark.parametrize(("n", "lines"), [(1, 1), (2, 1), (3, 2)])
def test_band_is_higher_with_more_lines(tmp_path, n, lines):
    one = draw(tmp_path, [panel(60, 80, {})]).shape[0]
    two = draw(tmp_path, [panel(60, 80, {})] * 3).shape[0]
    assert draw(tmp_path, [panel(60, 80, {})] * n).shape[0] == (one if lines == 1 else two)
    assert two > one


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (1, 1), (1200, 1000)])
def test_images_of_any_shape_fit(tmp_path, shape):
    mask = np.ones(shape, np.bool_)
    assert draw(tmp_path, [panel(*shape, {"cascade": mask})]).std() > 0


def test_the_same_bands_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw(tmp_path / name, [panel(60, 80, {"cascade": np.ones((60, 80), np.bool_)})])
    assert (tmp_path / "a/overview.png").read_bytes() == (tmp_path / "b/overview.png").read_bytes()


def test_several_classes_have_their_own_colours_but_for_unprompted_sam(tmp_path):
    left, right = np.zeros((2, 60, 80), np.bool_)
    left[:, :40], right[:, 40:] = True, True
    first, second = ((90 * 0.62 + np.array(c) * 0.38).round() for c in CLASS_COLOURS[:2])
    both = Panel(
        image=np.full((60, 80, 3), 90, np.uint8),
        references=[left, right],
        masks={"cascade": [left, right]},
        dice={"cascade": 1.0},
    )
    picture = draw(tmp_path, [both])
    assert count(picture, first) > 1000
    assert count(picture, second) > 1000
    same = replace(both, masks={"unprompted": [left, right]})
    picture = draw(tmp_path, [same], methods=("unprompted",))
    assert count(picture, (90 * 0.62 + np.array((240, 98, 90)) * 0.38).round()) > 1000
    assert count(picture, second) == 0


@pytest.mark.parametrize("classes", [["lungs"], ["lungs", "heart"]])
def test_every_colour_has_one_sign(classes, tmp_path):
    """With two classes, green and blue are theirs, and not those of the cascade and GT-SAM."""
    band = Band(classes, "phantoms", [panel(60, 80, {})], dict.fromkeys(NAMES, 0.5), 20)
    overview([band], tmp_path / "overview.png", method_names=NAMES, heading="A heading")
    with Image.open(tmp_path / "overview.png") as file:
        drawn = np.asarray(file.convert("RGB"), np.int16)
    red, green, blue = (count(drawn, colour) for colour in ((240, 98, 90), *CLASS_COLOURS[:2]))
    assert red > 50
    assert [green, blue] == pytest.approx([red, red], rel=0.1)
