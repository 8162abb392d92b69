"""The steps of a reproduction, with jobs that are only recorded."""

from __future__ import annotations

import json

import pytest

from salip_ray.output.store import Store
from salip_ray.planning.profile import Profile
from salip_ray.reproduction import run as steps
from salip_ray.reproduction.layouts import Listing, Prepared
from salip_ray.reproduction.protocol import BUNDLED, PROTOCOLS, make_settings
from salip_ray.reproduction.scoring import Figure


@pytest.fixture
def make_run(tmp_path):
    def make(dataset):
        prompts = tmp_path / "prompts.json"
        prompts.write_text(json.dumps({"Organ": ["a sentence"]}))
        protocol = PROTOCOLS[dataset]
        settings = make_settings(protocol, BUNDLED, prompts, seed=0)
        listings = [
            Listing(f"{name}.csv", f"{name}-references.csv", tuple(uris))
            for name, uris in (("all", "abcdef"), ("tuning", "abcde"), ("scored", "f"))
        ]
        lines = []
        made = steps.Reproduction(
            *(protocol, settings, Prepared(*listings, 0), Store(tmp_path / "out"), 0, True),
            lines.append,
        )
        return made, lines

    return make


def with_dice(monkeypatch, *values):
    """Record the jobs of a search, whose draws get these Dice."""
    jobs, dice = [], iter(values)
    monkeypatch.setattr(
        steps, "label", lambda images, output, config, **_: jobs.append((images, output, config))
    )
    monkeypatch.setattr(
        steps,
        "_published",
        lambda *_: [Figure("1", "published", "cascade", "a", None, next(dice))],
    )
    return jobs


def test_the_best_draw_wins_and_of_equal_draws_the_first(monkeypatch, make_run):
    made, lines = make_run("lungs")
    with_dice(monkeypatch, 0.1, 0.7, float("nan"), 0.7, 0.3)
    assert steps._search(made) is made.settings.draws[1]
    assert lines[1].startswith("draw 2 of 5: Dice 0.700 (propose.points_per_side=")


@pytest.mark.parametrize(("dataset", "area"), [("lungs", 5000), ("brain", 200)])
def test_draws_run_on_the_images_of_the_search_with_its_settings(
    monkeypatch, make_run, dataset, area
):
    made, _ = make_run(dataset)
    jobs = with_dice(monkeypatch, *[0.5] * 5)
    best = steps._search(made)
    assert [images for images, _, _ in jobs] == ["tuning.csv"] * 5
    assert len({output for _, output, _ in jobs}) == 5
    for (_, _, config), draw in zip(jobs, made.settings.draws, strict=True):
        assert config.propose.min_mask_region_area == area
        assert config.run.modes == ("cascade",)
        assert config.propose.points_per_side == draw.config.propose.points_per_side
    # What is labelled afterwards has the published size of labelling, and all modes.
    assert best.config.propose.min_mask_region_area == 200
    assert best.config.run.modes == ("cascade", "unprompted", "gt_sam")


def test_the_time_is_measured_once_and_shown_again(monkeypatch, make_run):
    made, _ = make_run("lungs")
    measured = []

    def measure(location, config, **_):
        measured.append(location)
        seconds = {"fetch": 0.0, "propose": 30.0, "retrieve": 5.0, "refine": 1.0, "commit": 0.0}
        return Profile(2, "cpu", 2, seconds, 1e6, 1e4)

    monkeypatch.setattr(steps, "measure", measure)
    monkeypatch.setattr(steps, "_count_pictures", lambda *_: 700)
    shown = steps._estimate(made)
    # 1,400 images and 25 of the search, 36 s each, on two cores.
    assert "700 images, labelled twice: about 7." in shown
    assert "hours on 2 cores" in shown
    assert steps._estimate(made) == shown
    assert measured == ["all.csv"]
