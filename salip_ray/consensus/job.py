"""Write the consensus of several runs: an ordinary output, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from salip_ray.config import ClassSpec, PrivacyConfig
from salip_ray.consensus.manifests import RowNumbers
from salip_ray.consensus.rows import make_row
from salip_ray.consensus.sources import SourceRun, Sources
from salip_ray.errors import ConfigError, JobError, OutputError, SalipError
from salip_ray.output.commit import commit_shard
from salip_ray.output.job_record import claim_or_resume_job, make_fingerprint, refuse_other_files
from salip_ray.output.layout import MANIFEST
from salip_ray.output.lease import Lease, held, require_owner
from salip_ray.output.seal import open_seal
from salip_ray.output.store import Store
from salip_ray.output.summary import Summary, repair_summary, summarise, write_summary
from salip_ray.pipeline.job import conclude
from salip_ray.pipeline.monitoring.monitor import Snapshot
from salip_ray.pipeline.monitoring.progress import ProgressReporter, Workload
from salip_ray.schema import COMMIT_COLUMNS, LABEL_SCHEMA
from salip_ray.sources.privacy import hides_uri, pseudonym, scrub
from salip_ray.wording import counted, one_line

#: Settings of a recipe that a consensus has. No model made it.
_RECIPE = ("task", "image", "privacy", "run")
_IMAGES_WITHOUT_RAY = 2048  # so many are done in this process before Ray is worth its start
_SCHEMA = pa.schema(
    [*LABEL_SCHEMA, *(pa.field(name, type_) for name, type_ in COMMIT_COLUMNS.items())]
)


@dataclass(frozen=True)
class _ShardTask:
    """All that is needed to write one shard, in this process or on another node.

    Attributes:
        store: the output.
        owner: of its lease.
        shard: number of the shard.
        planned: its rows of the manifest, as dicts.
        runs: the runs.
        numbers: where the images are in each run.
        changed: whether the file of each image changed between the runs.
        classes: of the consensus.
        privacy: which names the output hides.
        version: schema version of the output.
    """

    store: Store
    owner: str
    shard: int
    planned: list[dict[str, Any]]
    runs: tuple[SourceRun, ...]
    numbers: tuple[RowNumbers, ...]
    changed: list[bool]
    classes: tuple[ClassSpec, ...]
    privacy: PrivacyConfig
    version: int

    @property
    def images(self) -> int:
        return len(self.planned)

    def __call__(self) -> None:
        """Write the shard, unless another process has taken the output over."""
        labels = [run.labels for run in self.runs]
        rows = [self._row(seq, planned, labels) for seq, planned in enumerate(self.planned)]
        require_owner(self.store, self.owner)
        commit_shard(
            self.store,
            self.shard,
            pa.Table.from_pylist(rows, schema=_SCHEMA),
            self.images,
            {spec.label: spec.class_id for spec in self.classes},
            version=self.version,
        )

    def _row(
        self, seq: int, planned: Mapping[str, Any], labels: Sequence[Sequence[str]]
    ) -> dict[str, Any]:
        image_id, uri = planned["image_id"], planned["uri"]
        at = [numbers[seq].tolist() for numbers in self.numbers]
        rows = [
            None if shard < 0 else run.row(shard, index, image_id)
            for run, (shard, index) in zip(self.runs, at, strict=True)
        ]
        row = make_row(rows, self.classes, labels, changed=self.changed[seq])
        if hides_uri(uri, self.privacy):
            shown = pseudonym(image_id)
            if row["error"]:
                row["error"]["message"] = scrub(row["error"]["message"], [uri], shown)
            uri = shown
        about = {"image_id": image_id, "uri": uri, "_shard": self.shard, "_seq": seq}
        return {**row, **about, "volume": planned["volume"], "slice": planned["slice"]}


def make_consensus(
    runs: Sequence[str],
    output: str,
    *,
    run_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    run_manifests: Sequence[str] = (),
    manifest: str | None = None,
    quiet: bool = False,
) -> Summary:
    """Write the masks on which runs over the same images agree, as an ordinary output.

    The same call resumes a consensus that was stopped. Many images are spread over Ray: the one
    that this process is connected to, else that at ``RAY_ADDRESS``, else one on this machine.

    Args:
        runs: two or more finished outputs of :func:`salip_ray.label`.
        output: an empty or new location, or this same consensus.
        run_options: fsspec options of the runs.
        output_options: fsspec options of the output.
        run_manifests: the manifests of those runs that store theirs elsewhere, in their order.
        manifest: the file to write the manifest to, if it must not be in the output.
        quiet: show no progress.

    Raises:
        ConfigError: the runs cannot be compared.
        InputError: no two runs have an image in common.
        OutputError: a run is not finished, or the output holds other files, (ResumeError) belongs
            to another job, or (LeaseError) is being written by another driver.
        JobError: too many images become error rows.
    """
    started, progress = time.monotonic(), ProgressReporter(quiet=quiet)
    elsewhere = {} if manifest is None else {MANIFEST: manifest}
    store = Store(output, output_options, elsewhere=elsewhere)
    for location in runs:
        _require_outside(store, str(Store(location, run_options)))
    sources = Sources.open(runs, run_options, run_manifests)
    if run_manifests and manifest is None:
        raise ConfigError(
            "a run stores its manifest elsewhere, to hide names, so give the consensus another "
            "location for its own: --manifest FILE"
        )
    united, config = sources.manifest, sources.config
    recipe = config.recipe()
    made_by = {
        **make_fingerprint({name: recipe[name] for name in _RECIPE}, {}, united, None),
        "consensus": sources.describe(),
    }
    images = counted(united.n_images, "image")
    progress.report(
        f"{images} of {counted(len(sources.runs), 'run')}, {sources.common:,} in two or more"
    )
    progress.report(*(f"note: {note}" for note in sources.notes()))
    refuse_other_files(store)
    with held(store) as lease:
        claimed = claim_or_resume_job(store, united, made_by)
        todo = [n for n in range(united.n_shards) if n not in claimed.committed]
        if todo:
            if done := len(claimed.committed):
                shards = counted(united.n_shards, "shard")
                progress.report(f"resuming: {done:,} of {shards} already committed")
            open_seal(store)
            in_run = int(united.sizes[todo].sum())
            work = Workload(["agree"], in_run, len(todo))
            _run(_tasks(store, lease, sources, todo, claimed.version), work, lease, progress)
            seconds = time.monotonic() - started
            summary = summarise(store, united, wall_seconds=seconds, images_in_run=in_run)
            lease.require_owner()
            write_summary(store, summary)
        else:
            progress.report(f"{store} is complete: {images}")
            summary = summarise(store, united)
            repair_summary(store, summary)
    return conclude(summary, config, progress)


def _require_outside(store: Store, run: str) -> None:
    if f"{store}/".startswith(f"{run.rstrip('/')}/"):
        raise OutputError(f"{store} is in the run {run}: give an output outside of it")


def _tasks(
    store: Store, lease: Lease, sources: Sources, shards: Iterable[int], version: int
) -> Iterator[_ShardTask]:
    frozen = sources.manifest.frozen
    starts = np.concatenate([[0], np.cumsum(sources.manifest.sizes)])
    for shard in shards:
        start, end = int(starts[shard]), int(starts[shard + 1])
        yield _ShardTask(
            store,
            lease.owner,
            shard,
            frozen.slice(start, end - start).to_pylist(),
            sources.runs,
            tuple(numbers[start:end] for numbers in sources.numbers),
            sources.changed[start:end].tolist(),
            sources.config.task.classes,
            sources.config.privacy,
            version,
        )


def _run(
    tasks: Iterator[_ShardTask], work: Workload, lease: Lease, progress: ProgressReporter
) -> None:
    done = Snapshot(rows={"agree": 0})

    def count(task: _ShardTask) -> None:
        nonlocal done
        rows = done.rows["agree"] + task.images
        done = Snapshot(rows={"agree": rows}, committed=done.committed + 1)
        lease.require()

    with progress.watch(work, lambda: done):
        if work.images <= _IMAGES_WITHOUT_RAY:
            for task in tasks:
                task()
                count(task)
        else:
            _run_on_ray(tasks, count)


def _run_on_ray(tasks: Iterator[_ShardTask], count: Callable[[_ShardTask], None]) -> None:
    """Run tasks on all CPUs of a cluster, a few more at a time than there are CPUs."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    from salip_ray.cluster.session import local_cores, ray_session

    with ray_session(lambda _: local_cores()) as machine:
        remote = ray.remote(_ShardTask.__call__).options(num_cpus=1, name="agree")
        running = {}
        try:
            for task in islice(tasks, max(2, int(machine.cpus) + 1)):
                running[remote.remote(task)] = task
            while running:
                (first,), _ = ray.wait(list(running), num_returns=1)
                ray.get(first)
                count(running.pop(first))
                for task in islice(tasks, 1):
                    running[remote.remote(task)] = task
        except RayTaskError as error:
            if isinstance(error.cause, SalipError):
                raise error.cause from None
            raise JobError(f"the consensus failed: {one_line(error.cause, 300)}") from None
        except RayError as error:
            raise JobError(f"the consensus failed: {one_line(error, 300)}") from None
