"""What Ray Data is asked for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from salip_ray import load_config
from salip_ray.cluster.resources import Pool
from salip_ray.pipeline.actors import STAGES, Chain
from salip_ray.pipeline.dataflow import block_starts, cascaded
from salip_ray.pipeline.monitor import StageReporter


class Recorded:
    """A dataset that only notes what it is asked for."""

    def __init__(self):
        self.asked = []

    def map_batches(self, stage, **options):
        self.asked.append((stage, options))
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
    # Of what is left at any time, a block is not more than a quarter of an actor's share.
    left = rows - np.array(starts)
    assert (left > 4 * actors * (sizes - 1)).all()
    assert len(sizes) <= rows / 256 + 4 * actors * (np.log(256) + 2)


@pytest.mark.parametrize("gpus", [0.0, 0.25])
def test_actors_with_a_gpu_are_given_a_few_rows_and_others_whole_blocks(gpus):
    images = Recorded()
    cascaded(images, load_config("lungs"), dict.fromkeys(STAGES, pool(gpus)), StageReporter())
    assert [stage for stage, _ in images.asked] == list(STAGES.values())
    assert [options["batch_size"] for _, options in images.asked] == [8 if gpus else None] * 3
    assert {options["num_gpus"] for _, options in images.asked} == {gpus}


@pytest.mark.parametrize(
    ("with_pools", "chains"),
    [(["propose"], [3]), (["propose", "retrieve"], [1, 2]), (["propose", "refine"], [2, 1])],
)
def test_a_stage_without_a_pool_is_done_by_the_actors_before_it(with_pools, chains):
    images = Recorded()
    cascaded(images, load_config("lungs"), {name: pool() for name in with_pools}, StageReporter())
    done = [
        options["fn_constructor_kwargs"]["stages"] if stage is Chain else [stage]
        for stage, options in images.asked
    ]
    assert [len(stages) for stages in done] == chains
    assert [stage for stages in done for stage in stages] == list(STAGES.values())
