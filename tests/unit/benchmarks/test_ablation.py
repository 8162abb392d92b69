"""The ablation measures the cascade: cached results change no label."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from ablation import OPTIONS, methods_table, options_table, presence_table, worst
from ablation_report import markdown
from cached import Item
from intervals import Column, interval
from recipes import Bench, scores

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.geometry import to_original
from salip_ray.config import load_config
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.schema import ClipScores, Selection

pytestmark = pytest.mark.usefixtures("one_thread")

FEW_POINTS = (
    "propose.points_per_side=4",
    "task.min_confidence=0",
    "run.modes=[cascade, unprompted, gt_sam]",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("cached"), "bundled")
    bench.config = load_config(
        "lungs", overrides=("task.min_area=0", "task.max_area=1", FEW_POINTS[0])
    )
    bench.proposer = type(bench.proposer)(bench.sam, bench.config)
    return bench


@pytest.fixture(scope="module")
def item():
    phantom = make_phantom("chest_xray", 1, bank="tune", size=128)
    return Item("phantom", lambda: (phantom.image, phantom.mask("lungs")))


@pytest.mark.parametrize(
    "options",
    [(), ("retrieve.ensemble=[bbox]", "retrieve.scoring=softmax", "refine.mask_feedback=1")],
    ids=["shipped", "changed"],
)
def test_a_variant_labels_as_the_cascade_does(bench, item, options):
    image, reference = item.load()
    variant = bench.variant("lungs", *FEW_POINTS, *options)
    for _ in range(2):  # made, then read
        (cached,) = bench.cached([item], variant)
        labels = variant.label(cached)
        result = Cascade(variant.config, sam=bench.sam, clip=bench.clip)(
            image, references={"lungs": reference}
        )
        assert [m.method for m in labels.masks] == [m.method for m in result.masks]
        for mask, expected in zip(labels.masks, result.masks, strict=True):
            np.testing.assert_array_equal(mask.mask, expected.mask)
            assert mask.candidate_ids == expected.candidate_ids


def test_no_single_candidate_and_no_recipe_is_better_than_the_oracle_choice(bench, item):
    variant = bench.variant("lungs")
    (cached,) = bench.cached([item], variant)
    best = variant.oracle(cached)

    def alone(candidate):
        (spec,) = variant.config.task.classes
        pick = Selection(spec.label, spec.class_id, candidate.id, 0, ClipScores(0.0))
        return scores(variant.label(cached, [pick]), cached).get("cascade", 0.0)

    closest = sorted(
        variant.candidates(cached),
        key=lambda c: -dice(to_original(c.mask, cached.reference.shape), cached.reference),
    )
    assert best >= max(alone(candidate) for candidate in closest[:3])
    assert best >= scores(variant.label(cached), cached)["cascade"]
    assert 0 < best <= 1


def test_an_interval_holds_the_mean_and_narrows_with_images():
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    low, high = interval(values)
    assert low < values.mean() < high
    few_low, few_high = interval(values[:20])
    assert few_high - few_low > 2 * (high - low)
    assert interval(values) == [low, high]


def test_a_change_is_measured_in_pairs():
    base = Column([0.1, 0.5, 0.9])
    better = Column([0.2, 0.6, 1.0])
    summary = better.summary(base)
    assert summary["change"] == 0.1
    assert summary["change_interval"] == [0.1, 0.1]


def test_every_table_has_its_rows_and_is_written(bench, item):
    head = make_phantom("brain_mri", 1, bank="tune", size=128)
    other = Item("head", lambda: (head.image, head.mask("brain")))
    methods = methods_table(bench, None, lambda task: [item, other] if task == "lungs" else [], 1)
    figures = methods["lungs"]
    assert list(methods) == ["lungs"]
    assert 0 < figures["our recipe"]["mean"] <= figures["GT-SAM"]["mean"] <= 1
    assert figures["our recipe"]["n"] == 2
    assert figures["seconds"]["propose"] > 0

    images = {"lungs": [item], "brain": [other], "fetal_head": []}
    presence = presence_table(bench, images)
    assert (presence["lungs"]["present"], presence["lungs"]["absent"]) == (1, 1)
    assert presence["lungs"]["F1"] == presence["brain"]["F1"] == 1.0

    tried = {name: OPTIONS[name] for name in ("box jitter x 8", "SAM's prior x 4")}
    options = options_table(bench, 1, tried)
    assert options["lungs"]["our recipe"]["change"] == 0.0
    assert "box jitter x 8" in options["lungs"]
    # The preset already has this option.
    assert "SAM's prior x 4" not in options["lungs"]

    failures = worst(bench, lambda task: images[task], 1)
    assert [len(row) for row in failures] == [1, 1, 0]
    assert failures[0][0].reference.any()

    text = markdown(
        {
            "weights": {"sam": "0" * 64},
            "methods": {"phantoms": methods},
            "presence": {"phantoms": presence},
            "options": options,
        }
    )
    assert "| lungs (2) |" in text
    assert "| box jitter x 8 |" in text
    assert "| brain | 1.000 | 1.000 | 1.000 | 1 | 1 |" in text
