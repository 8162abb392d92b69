"""Run jobs and searches in this process, without Ray: all steps of a reproduction in seconds.

Listing, claim, lease, decoding, stages, commits, resume and summary are those of a job; only the
distribution over actors is left out, which the tests of the pipeline cover.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.output.commit import commit_shard
from salip_ray.pipeline import job
from salip_ray.pipeline.actors import StageActor
from salip_ray.pipeline.decoding.decode import fetch_and_decode
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.stages import stages_of
from salip_ray.planning.profile import Profile
from salip_ray.reproduction import protocol, run
from salip_ray.tuning import search
from salip_ray.tuning.cache import from_bytes
from salip_ray.tuning.trials import Trial
from salip_ray.tuning.workers import CacheWorker


def label_here(work: job.Job, todo: pa.Table, **_: Any) -> None:
    """Label and commit the rows of a job, shard by shard."""
    reporter = StageReporter()
    actor = StageActor(list(stages_of(work.config).values()), work.config, 1, reporter)
    classes = {spec.label: spec.class_id for spec in work.config.task.classes}
    todo = todo.filter(pc.greater_equal(todo["seq"], 0))
    for shard in sorted(set(todo["shard"].to_pylist())):
        batch = todo.filter(pc.equal(todo["shard"], shard)).combine_chunks()
        decoded = fetch_and_decode(batch, work.config, work.references, reporter)
        rows = [done for row in decoded for done in actor(row)]
        table = pa.concat_tables(rows, promote_options="permissive")
        commit_shard(work.store, shard, table, batch.num_rows, classes)


def try_here(search_: search.Search, rung: int, running: list[int], indices: range, _: Any) -> None:
    """Try recipes on the images of a rung."""
    worker = CacheWorker(search_, running)
    for index in indices:
        worker.cache(index)
    from salip_ray.cascade.loading import load_refiner
    from salip_ray.tuning.trials import CachedTexts

    sam = load_refiner(search_.recipes[0].config, decoder_only=True).sam
    texts = CachedTexts.from_bytes(search_.store.read(search_.texts_name))
    for number in running:
        trial = Trial(search_.recipes[number].config, sam, texts)
        scores = [
            {
                label: None if math.isnan(dice) else dice
                for label, dice in trial.dice(
                    from_bytes(search_.store.read(search_.cache_name(index)))
                ).items()
            }
            for index in indices
        ]
        data = {"scores": scores, "error": ""}
        search_.store.write(search_.trial_name(rung, number), json.dumps(data).encode())


def measured(*_: Any, **__: Any) -> Profile:
    """Return a profile without measuring."""
    stages = dict.fromkeys(("fetch", "propose", "retrieve", "refine", "commit"), 0.1)
    return Profile(2, "cpu", 2, stages, 1e6, 1e4)


def without_ray(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Replace all uses of Ray in a reproduction, and make its searches short and coarse.

    Args:
        replace: such as ``monkeypatch.setattr``.
    """
    replace(job, "run_on_ray", label_here)
    replace(run, "shared_session", lambda _: contextlib.nullcontext())
    replace(run, "measure", measured)
    replace(search, "ray_session", lambda _: contextlib.nullcontext())
    replace(search, "_run_trials", try_here)
    coarse = {"propose.points_per_side": (2, 3, 4), "propose.pred_iou_thresh": (0.0, 0.1)}
    short = {name: dataclasses.replace(p, space=coarse) for name, p in protocol.PROTOCOLS.items()}
    replace(run, "PROTOCOLS", short)
    replace(protocol, "DRAWS", 2)
    replace(run, "TRIALS", 3)
