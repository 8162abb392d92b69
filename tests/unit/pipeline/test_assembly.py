"""What Ray Data is asked for."""

from __future__ import annotations

import pytest

from salip_ray import load_config
from salip_ray.pipeline.assembly import cascaded
from salip_ray.pipeline.monitor import Reporter
from salip_ray.pipeline.resources import Pool


@pytest.mark.parametrize("gpus", [0.0, 0.25])
def test_actors_with_a_gpu_are_given_rows_and_others_whole_blocks(gpus):
    asked = []

    class Recorded:
        def map_batches(self, stage, **options):
            asked.append(options)
            return self

    pool = Pool(min_size=1, max_size=2, cpus=1.0, gpus=gpus, threads=1)
    pools = dict.fromkeys(("propose", "retrieve", "refine"), pool)
    cascaded(Recorded(), load_config("lungs"), pools, Reporter())
    assert [options["batch_size"] for options in asked] == [1 if gpus else None] * 3
    assert {options["num_gpus"] for options in asked} == {gpus}
