"""The calls of Ray Data, and the blocks of the manifest."""

from __future__ import annotations

import inspect

import numpy as np
import pyarrow as pa
import pytest

from salip_ray import load_config
from salip_ray.cluster.resources import Pool
from salip_ray.pipeline.actors import StageActor
from salip_ray.pipeline.dataflow import add_actors, assign_stages, block_starts, label_and_commit
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.stages import STAGES


class Recorded:
    """A dataset that records what it is asked for."""

    def __init__(self):
        self.calls = []

    def map_batches(self, actor, **options):
        self.calls.append((actor, options))
        return self


def pool(gpus: float = 0.0) -> Pool:
    return Pool(min_size=1, max_size=2, cpus=1.0, gpus=gpus, threads=1)


@pytest.mark.parametrize("actors", [1, 2, 64])
@pytest.mark.parametrize("rows", [1, 7, 160, 5000, 100_000])
def test_blocks_get_smaller_towards_the_end(rows, actors):
    todo = pa.table({"uri": ["x"] * rows, "index": pa.nulls(rows, pa.int32())})
    starts = block_starts(todo, actors)
    sizes = np.diff([*starts, rows])
    assert starts[0] == 0
    assert sizes.max() <= 256
    assert (np.diff(sizes) <= 0).all()
    assert sizes[-1] == 1
    # Of the remaining rows, a block is not more than a quarter of an actor's share.
    left = rows - np.array(starts)
    assert (left > 4 * actors * (sizes - 1)).all()
    assert len(sizes) <= rows / 256 + 4 * actors * (np.log(256) + 2)


@pytest.mark.parametrize("gpus", [0.0, 0.25])
def test_actors_with_a_gpu_get_a_few_rows_and_others_whole_blocks(gpus):
    rows, config = Recorded(), load_config("lungs")
    add_actors(rows, list(STAGES), pool(gpus), config, StageReporter())
    ((actor, options),) = rows.calls
    assert issubclass(actor, StageActor)
    assert actor.__name__ == "ProposeRetrieveRefine"
    assert options["fn_constructor_kwargs"]["stages"] == list(STAGES.values())
    assert options["batch_size"] == (8 if gpus else None)
    assert options["num_gpus"] == gpus


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        (["propose"], [["propose", "retrieve", "refine"]]),
        (["propose", "retrieve"], [["propose"], ["retrieve", "refine"]]),
        (["propose", "refine"], [["propose", "retrieve"], ["refine"]]),
        (["propose", "retrieve", "refine"], [["propose"], ["retrieve"], ["refine"]]),
    ],
)
def test_a_stage_without_a_pool_joins_the_actors_before_it(pools, expected):
    assigned = assign_stages(load_config("lungs"), {name: pool() for name in pools})
    assert [stages for stages, _ in assigned] == expected


def test_the_dataflow_fits_on_a_screen():
    assert len(inspect.getsource(label_and_commit).splitlines()) <= 60
