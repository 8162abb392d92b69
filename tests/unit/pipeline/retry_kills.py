"""Kill ``retry`` at each write of a file, and run it again: ``python -m ... FOLDER``.

The whole of ``retry`` runs in a child that ends by SIGKILL, on a real disk. Only Ray and weights
are missing: the sink gets good rows in the child itself. A separate interpreter runs this, because
it forks.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow.compute as pc

from salip_ray.config import load_config
from salip_ray.output import job_record, local_files, run_record, store
from salip_ray.output.manifest import make_manifest
from salip_ray.output.store import Store
from salip_ray.output.summary import summarise, write_summary
from salip_ray.output.verify import verify
from salip_ray.pipeline import retry_errors as retries
from salip_ray.pipeline.sink import ShardSink
from tests.conftest import tree
from tests.unit.output.outputs import TASK, commit
from tests.unit.output.test_commit import refined, table
from tests.unit.output.test_job_record import listing

WEIGHTS = {"sam": "a", "clip": "b"}
MOMENTS = ("before", "after")  #: a write: with a temporary file on disk, or with the file replaced


def write_output(folder: Path) -> Store:
    """Write an output of five images in three shards, finished, with one error row."""
    output, config = Store(folder), load_config(TASK)
    images = make_manifest(listing([f"/in/{n}.png" for n in range(5)]), 2)
    fingerprint = job_record.make_fingerprint(config.recipe(), WEIGHTS, images, None)
    job_record.claim_or_resume_job(output, images, fingerprint)
    for shard in range(3):
        commit(output, shard)
    write_summary(output, summarise(output, images))
    return output


def commit_good_rows(job, todo, *, rows_per_block, merge):
    """Stand in for Ray: record the devices as a run does, and commit good rows."""
    run_record.record_precision(job.store, "exact")
    run_record.record_devices(job.store, {"cpus": 2, "gpus": 0, "accelerators": []})
    gate = SimpleNamespace(begin=lambda _: None, end=lambda *_, **__: None)
    sink = ShardSink(
        job.store,
        sizes=job.manifest.sizes,
        classes={"lungs": 1},
        owner=job.lease.owner,
        gate=gate,
        merge=merge,
    )
    rows = [
        {**refined(row["seq"]), "image_id": row["image_id"], "uri": row["uri"]}
        | {"_shard": row["shard"]}
        for row in todo.filter(pc.greater_equal(todo["seq"], 0)).to_pylist()
    ]
    sink.write([table(*rows)], None)


def in_child(action: Callable[[], object]) -> int:
    """Run a function in a child, and return how the child ended.

    The parent starts no thread, which a fork would not copy.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        action()
        status = 0
    except Exception:  # noqa: BLE001  (the parent continues)
        traceback.print_exc()
    finally:
        os._exit(status)


def run_retry(folder: Path, kill_at: int = 0, moment: str = "") -> None:
    """Run ``retry``; at a write, kill this process."""
    writes = itertools.count(1)

    def counted(write: Callable[[Path, bytes], object]) -> Callable[[Path, bytes], object]:
        def one(path: Path, data: bytes) -> object:
            due = next(writes) == kill_at
            if due and moment == "before":
                local_files._write_temporary(path, data)
                os.kill(os.getpid(), signal.SIGKILL)
            result = write(path, data)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return one

    store.replace_file = counted(local_files.replace_file)
    store.create_file = counted(local_files.create_file)
    retries.identify, retries.pin = lambda _: WEIGHTS, lambda config, _: config
    retries.run_on_ray = commit_good_rows
    retries.retry(folder, quiet=True)


def check(folder: Path, kill: str, whole: Path) -> None:
    """Print a JSON line with the state of an output after a kill and another retry."""
    left = sum(local_files.is_temporary(path.name) for path in folder.rglob("*"))
    ended = in_child(lambda: run_retry(folder))

    def compare() -> None:
        problems = [str(problem) for problem in verify(str(folder)).problems]
        equal = tree(folder) == tree(whole)
        facts = {"kill": kill, "temporary_files": left, "next": ended}
        print(json.dumps({**facts, "problems": problems, "equal": equal}), flush=True)  # noqa: T201

    assert in_child(compare) == 0


def main(work: Path) -> None:
    """Kill a retry before and after each write, until one ends without a kill."""
    finished, whole = work / "finished", work / "whole"
    assert in_child(lambda: write_output(finished)) == 0
    shutil.copytree(finished, whole)
    assert in_child(lambda: run_retry(whole)) == 0
    for kill_at, moment in ((n, moment) for n in itertools.count(1) for moment in MOMENTS):
        folder = work / f"{kill_at}-{moment}"
        shutil.copytree(finished, folder)
        ended = in_child(partial(run_retry, folder, kill_at, moment))
        if ended == 0:
            return  # there are no more writes
        assert os.WIFSIGNALED(ended), ended
        assert os.WTERMSIG(ended) == signal.SIGKILL
        check(folder, f"{moment} write {kill_at}", whole)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
