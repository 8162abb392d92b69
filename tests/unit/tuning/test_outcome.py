"""The results of a search name its images, and its task file can be used to label."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET

import pytest

from salip_ray.config import load_config
from salip_ray.tuning.halving import Standing
from salip_ray.tuning.outcome import plot, summary, table, task_file
from salip_ray.tuning.space import Recipe, with_changes


@pytest.fixture
def searched():
    config = load_config("lungs")
    changes = [{}, {"task.top_k": 1}, {"task.top_k": 3}, {"task.top_k": 2}]
    recipes = [Recipe(n, c, with_changes(config, c)) for n, c in enumerate(changes)]
    standings = {
        0: Standing(0, [{"lungs": 0.8}, {"lungs": 0.6}]),
        1: Standing(1, [{"lungs": 0.9}, {"lungs": 0.7}]),
        2: Standing(2, [{"lungs": 0.95}]),
        3: Standing(3, [], error="ValueError: no"),
    }
    return recipes, standings


def test_best_recipe_was_tried_on_all_images(searched):
    images = [{"image_id": "a", "uri": "/a.png"}, {"image_id": "b", "uri": "/b.png"}]
    results = summary({"seed": 0}, *searched, images)
    assert results["best"]["trial"] == 1
    assert results["best"]["changes"] == {"task.top_k": 1}
    assert results["untuned"]["dice"] == pytest.approx(0.7)
    assert results["images"][1] == {**images[1], "untuned": {"lungs": 0.6}, "tuned": {"lungs": 0.7}}


def test_table_lists_trials_by_images_then_dice(searched):
    rows = list(csv.DictReader(table(*searched).splitlines()))
    assert [row["trial"] for row in rows] == ["1", "0", "2", "3"]
    assert rows[0] == {
        "trial": "1",
        "dice": "0.800000",
        "images": "2",
        "error": "",
        "task.top_k": "1",
    }
    assert rows[3]["error"] == "ValueError: no"


def test_task_file_holds_the_whole_recipe_and_its_images(searched, tmp_path):
    recipe = with_changes(searched[0][1].config, {"propose.pred_iou_thresh": 0.1234})
    (tmp_path / "tuned.yaml").write_text(task_file(recipe, ["a", "b"], "Trial 1."))
    loaded = load_config(tmp_path / "tuned.yaml")
    assert loaded.task.tuned_on == ("a", "b")
    for section in ("propose", "retrieve", "refine", "image", "sam", "clip"):
        assert getattr(loaded, section) == getattr(recipe, section)
    assert loaded.task == recipe.task.model_copy(update={"tuned_on": ("a", "b")})


def test_plot_has_a_point_for_each_trial_with_a_dice(searched):
    root = ET.fromstring(plot(list(searched[1].values()), 2))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [
        "trial 0: 0.700 on 2 images",
        "trial 1: 0.800 on 2 images",
        "trial 2: 0.950 on 1 image",
    ]
