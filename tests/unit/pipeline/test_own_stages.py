"""Stages with models of another package, in actors without Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from salip_ray.config import load_config
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.pipeline.actors import StageActor
from salip_ray.pipeline.dataset import prepare
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.stages import STAGES, stages_of

TOY = Path(__file__).resolve().parents[2] / "pipeline" / "toy"
OWN = {"propose": "Proposer", "retrieve": "Retriever", "refine": "Refiner"}
SHOWN = ("status", "error", "outcomes", "masks", "ranking", "n_candidates", "_png")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """Make the toy package importable, as its installation does."""
    monkeypatch.syspath_prepend(TOY)
    yield
    for name in ("toy_models", "toy_models.faulty"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def images():
    phantoms = [make_phantom("chest_xray", index, bank="tune", size=96) for index in range(3)]
    references = [phantom.mask("lungs").astype(np.int64).tolist() for phantom in phantoms]
    pixels = [cv2.imencode(".png", phantom.image)[1].tobytes() for phantom in phantoms]
    return pa.table({"image": pixels, "reference": references})


def config_of(*overrides, **models):
    names = {**OWN, **models}
    given = [
        f"{stage}.model={name if name in ('sam', 'clip', 'none') else f'toy_models:{name}'}"
        for stage, name in names.items()
    ]
    return load_config("lungs", overrides=["image.long_side=96", *given, *overrides])


def labelled(images, config, *, fused):
    """Bring the images through all stages, in one actor or one each; return rows and columns."""
    (table,) = prepare(images, config, "image", "reference")
    names = list(stages_of(config))
    carried = []
    for stages in [names] if fused else [[name] for name in names]:
        actor = StageActor([STAGES[name] for name in stages], config, 1, StageReporter())
        table = pa.concat_tables(actor(table), promote_options="permissive")
        carried.append(set(table.column_names))
    return [{name: row[name] for name in SHOWN} for row in table.to_pylist()], carried


def without_nan(rows):
    return repr(rows)  # NaN equals no NaN


@pytest.mark.parametrize(
    ("models", "modes", "between"),
    [
        ({}, "[cascade, gt_sam, unprompted]", {"_embedding", "_tensors", "_working"}),
        ({"propose": "Labeller", "refine": "none"}, "[cascade]", {"_selections"}),
        ({"refine": "none"}, "[cascade, unprompted]", {"_working"}),
        ({"retrieve": "clip"}, "[cascade]", {"_embedding", "_tensors", "_working"}),
        ({"propose": "Labeller", "refine": "sam"}, "[cascade]", {"_selections", "_working"}),
        ({}, "[unprompted]", set()),
    ],
)
def test_separate_actors_give_the_rows_of_one_actor(images, models, modes, between):
    config = config_of(f"run.modes={modes}", **models)
    together, _ = labelled(images, config, fused=True)
    apart, carried = labelled(images, config, fused=False)
    assert without_nan(apart) == without_nan(together)
    assert not [row["error"] for row in together if row["error"]]
    heavy = {"_embedding", "_tensors", "_working", "_selections"}
    assert carried[0] & heavy == between  # after PROPOSE
    assert not carried[-1] & {*heavy, "_candidates", "_references"}


def test_a_model_without_batches_fails_at_once_for_lack_of_memory(images, monkeypatch):
    import toy_models

    calls = []

    def starve(self, working):
        calls.append(1)
        raise MemoryError("no")

    monkeypatch.setattr(toy_models.Proposer, "__call__", starve)
    rows, _ = labelled(images, config_of(), fused=True)
    assert [row["error"]["type"] for row in rows] == ["MemoryError"] * 3
    assert all("no: the memory of the worker ran out" in row["error"]["message"] for row in rows)
    assert len(calls) == 3


def test_nan_of_a_model_is_an_error_row_of_its_stage(images):
    rows, _ = labelled(images, config_of("retrieve.model=toy_models.faulty:NaNRanks"), fused=True)
    for row in rows:
        assert row["status"] == "error"
        assert row["error"]["stage"] == "retrieve"
        assert "toy_models.faulty:NaNRanks returned scores with NaN" in row["error"]["message"]


def test_a_hungry_model_gets_smaller_batches_and_gives_the_same_rows(images):
    config = config_of("propose.model=toy_models.faulty:Hungry", "propose.points_per_batch=64")
    (table,) = prepare(images, config, "image", "reference")
    actor = StageActor([STAGES[name] for name in stages_of(config)], config, 1, StageReporter())
    rows = pa.concat_tables(actor(table), promote_options="permissive").to_pylist()
    assert [row["_fallbacks"] for row in rows] == [[{"stage": "propose", "batch": 8}]] * 3
    expected, _ = labelled(images, config_of(), fused=True)
    assert without_nan([{name: row[name] for name in SHOWN} for row in rows]) == without_nan(
        expected
    )


def test_masks_of_a_wrong_shape_are_an_error_row_that_says_so(images):
    rows, _ = labelled(images, config_of("propose.model=toy_models.faulty:WrongShape"), fused=True)
    for row in rows:
        assert (row["status"], row["error"]["type"]) == ("error", "ModelError")
        assert "returned masks of shape" in row["error"]["message"]
