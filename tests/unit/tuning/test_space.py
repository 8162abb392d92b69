"""The space of a search: seeded, valid recipes, read from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from salip_ray.config import load_config
from salip_ray.errors import ConfigError
from salip_ray.tuning.space import (
    Range,
    default_space,
    draw_recipes,
    read_space,
    with_changes,
)


def test_changes_leave_open_pools_open():
    config = load_config("lungs")
    changed = with_changes(config, {"propose.points_per_side": 5})
    assert changed.propose.points_per_side == 5
    assert changed.pools.own == config.pools.own == frozenset()
    assert with_changes(config, {}) == config


@pytest.mark.parametrize("task", ["lungs", "brain", "fetal_head"])
def test_same_seed_gives_the_same_valid_recipes(task):
    config = load_config(task)
    space = default_space(config)
    recipes = draw_recipes(config, space, 30, seed=3)
    assert recipes == draw_recipes(config, space, 30, seed=3)
    assert recipes != draw_recipes(config, space, 30, seed=4)
    assert [recipe.number for recipe in recipes] == list(range(30))
    assert recipes[0].config == config
    assert not recipes[0].changes
    for recipe in recipes[1:]:
        assert recipe.changes.keys() == space.keys()
        assert recipe.config.propose.pred_iou_thresh == recipe.changes["propose.pred_iou_thresh"]
        assert recipe.config.task.prompts == config.task.prompts


def test_more_trials_start_with_the_same_recipes():
    config = load_config("lungs")
    space = default_space(config)
    assert draw_recipes(config, space, 30, 0)[:10] == draw_recipes(config, space, 10, 0)


def test_invalid_recipe_is_drawn_again():
    config = load_config("lungs")
    space = {"task.min_area": Range(0.0, 0.9), "task.max_area": Range(0.0, 1.0)}
    for recipe in draw_recipes(config, space, 40, 0):
        assert recipe.config.task.min_area < recipe.config.task.max_area
    with pytest.raises(
        ConfigError, match="the space has hardly any valid recipe: 200 in a row failed with"
    ):
        draw_recipes(config, {"propose.pred_iou_thresh": (2.0,)}, 5, 0)


def test_space_is_read_from_a_file(tmp_path: Path):
    file = tmp_path / "space.yaml"
    file.write_text("propose.pred_iou_thresh: {low: 0.2, high: 0.4}\ntask.top_k: [1, 2]\n")
    assert read_space(file) == {"propose.pred_iou_thresh": Range(0.2, 0.4), "task.top_k": (1, 2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task.prompts: [a]", r"'task\.prompts' cannot be searched"),
        ("image.long_side: [64]", r"'image\.long_side' cannot be searched"),
        ("propose.pred_iou: [0.5]", r"'propose\.pred_iou' cannot be searched"),
        ("task.top_k: 3", r"task\.top_k must be a list of choices"),
        (
            "task.min_area: {low: 0.5, high: 0.1}",
            "the range of task.min_area must ascend, found 0.5 to 0.1",
        ),
        ("[]", "must map fields to their choices"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_invalid_space_file_is_refused(tmp_path, text, message):
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_space(file)
    with pytest.raises(ConfigError, match="does not exist"):
        read_space(tmp_path / "none.yaml")
