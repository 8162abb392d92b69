"""The sleeping stages of the benchmark have the interface of the real ones."""

from __future__ import annotations

import inspect

import pyarrow as pa
import pytest

from benchmarks import noop
from salip_ray import load_config
from salip_ray.output.commit import commit_shard
from salip_ray.output.manifest import TODO_SCHEMA
from salip_ray.output.store import Store
from salip_ray.pipeline.monitoring.monitor import StageReporter


def test_rows_pass_through_all_stages_and_are_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(noop, "EMBEDDING", 8)
    config = load_config("lungs")
    todo = [{"image_id": f"{n:032x}", "uri": f"/{n}.png", "shard": 0, "seq": n} for n in range(3)]
    batch = pa.Table.from_pylist(todo, schema=TODO_SCHEMA)
    (rows,) = noop.nothing_fetched(batch, config, None, StageReporter())
    for stage in (noop.Propose, noop.Retrieve, noop.Refine):
        rows = pa.concat_tables(list(noop.SleepingActor([stage], config, 1, StageReporter())(rows)))
    assert rows["image_id"].to_pylist() == [row["image_id"] for row in todo]
    assert set(rows["status"].to_pylist()) == {"empty"}
    commit_shard(Store(tmp_path), 0, rows, 3, {"lungs": 1})
    assert (tmp_path / "shards" / "part-00000.parquet").exists()


def test_fetching_nothing_takes_the_arguments_of_the_real_one():
    from salip_ray.pipeline.decoding.decode import fetch_and_decode

    names = list(inspect.signature(fetch_and_decode).parameters)
    assert list(inspect.signature(noop.nothing_fetched).parameters) == names


@pytest.mark.parametrize("stage", [noop.Propose, noop.Retrieve, noop.Refine])
def test_each_stage_adds_the_columns_of_the_real_one(stage):
    from salip_ray.pipeline import stages

    original = stages.STAGES[stage.name]
    assert (original.adds, original.passes) == (stage.adds, stage.passes)
