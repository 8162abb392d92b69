"""The summary of a job: the sum of the statistics of its shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from salip_ray.errors import JobError, OutputError
from salip_ray.output.layout import STATS, SUMMARY, shard_file
from salip_ray.output.manifest import Manifest
from salip_ray.output.seal import is_sealed, write_seal
from salip_ray.output.store import Store
from salip_ray.schema import SCHEMA_VERSION, TIMED_STAGES

#: Fields that the statistics of every shard have, with their types: ``{kind}`` is a mapping to it.
STATISTICS: dict[str, Any] = {
    "rows": int,
    "status": {int},
    "outcomes": {dict},
    "errors": {int},
    "seconds": {float},
    "files": {dict},
}
#: Fields of a summary that are read again, if it has them.
_READ_AGAIN: dict[str, Any] = {
    "wall_seconds": float,
    "images_per_second": float,
    "images_in_run": int,
    "skipped": {int},
}


@dataclass(frozen=True)
class StageTime:
    """Seconds that all workers together spent in a stage, and images per second of one worker."""

    seconds: float
    images_per_second: float | None


@dataclass(frozen=True)
class Summary:
    """The result of :func:`salip_ray.label`.

    Attributes:
        output: public URI of the output.
        images: number of rows of the job, all committed.
        shards: number of shards of the job.
        status: number of rows by status: ``ok``, ``empty``, ``error``.
        outcomes: number of images by outcome, for each class.
        errors: number of error rows by the stage that failed.
        stages: time by stage.
        wall_seconds: duration of the run that completed the job.
        images_in_run: number of images labelled in that run; the others were committed before.
        skipped: number of files of the input that were left out, by reason.
        schema_version: of the output's shards.

    Examples:
        >>> from salip_ray import Summary
        >>> summary = Summary("labels", images=4, shards=1, status={"ok": 3, "error": 1})
        >>> summary.error_share
        0.25
    """

    output: str
    images: int
    shards: int
    status: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    stages: dict[str, StageTime] = field(default_factory=dict)
    wall_seconds: float = 0.0
    images_in_run: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def error_share(self) -> float:
        """Share of the rows whose status is ``error``."""
        return self.status.get("error", 0) / self.images

    @property
    def images_per_second(self) -> float | None:
        """Images per second of the whole run, including start-up."""
        return self.images_in_run / self.wall_seconds if self.wall_seconds else None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``summary.json``."""
        return {
            "schema_version": self.schema_version,
            **asdict(self),
            "images_per_second": self.images_per_second,
        }


def summarise(
    store: Store,
    manifest: Manifest,
    *,
    wall_seconds: float = 0.0,
    images_in_run: int = 0,
    skipped: Mapping[str, int] | None = None,
) -> Summary:
    """Add up the statistics of all shards.

    Args:
        store: the output.
        manifest: of the job.
        wall_seconds: duration of the run.
        images_in_run: number of images labelled in the run.
        skipped: files that the listing left out; None for those of the stored summary.

    Raises:
        JobError: the shards' statistics do not add up to the manifest.
    """
    names = [shard_file(STATS, shard) for shard in range(manifest.n_shards)]
    stats = [
        read_statistics(store.path_of(name), data) for name, data in store.read_all(names).items()
    ]
    rows = sum(shard["rows"] for shard in stats)
    if len(stats) != manifest.n_shards or rows != manifest.n_images:
        raise JobError(
            f"output {store} holds statistics of {len(stats)} of {manifest.n_shards} shards and "
            f"{rows} of {manifest.n_images} rows: files were deleted or altered. Run salip-ray "
            "verify to name them"
        )
    return Summary(
        output=str(store),
        images=manifest.n_images,
        shards=manifest.n_shards,
        **total_counts(stats),
        stages=_times(_total(shard["seconds"] for shard in stats), rows),
        wall_seconds=round(wall_seconds, 3),
        images_in_run=images_in_run,
        skipped=dict(_skipped_before(store) if skipped is None else skipped),
        schema_version=max(
            (shard.get("schema_version", SCHEMA_VERSION) for shard in stats), default=SCHEMA_VERSION
        ),
    )


def total_counts(statistics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields ``status``, ``outcomes`` and ``errors`` of a summary.

    Args:
        statistics: of all shards.
    """
    labels = dict.fromkeys(label for shard in statistics for label in shard["outcomes"])
    return {
        "status": _total(shard["status"] for shard in statistics),
        "outcomes": {
            label: _total(shard["outcomes"].get(label, {}) for shard in statistics)
            for label in labels
        },
        "errors": _total(shard["errors"] for shard in statistics),
    }


def read_statistics(path: str, data: bytes) -> dict[str, Any]:
    """Return the statistics of a shard.

    Args:
        path: of their file, for the message.
        data: content of the file.

    Raises:
        OutputError: they are damaged.
    """
    try:
        stats = json.loads(data)
        for name, kind in STATISTICS.items():
            _require(stats[name], kind)
        for counts in stats["outcomes"].values():
            _require(counts, {int})
    except (ValueError, KeyError, TypeError):
        raise OutputError(
            f"{path} is damaged: restore it, or delete it and the Parquet file of its shard and "
            "run the label command again"
        ) from None
    return dict(stats)


def write_summary(store: Store, summary: Summary) -> None:
    """Write ``summary.json``, then seal the output."""
    store.write(SUMMARY, json.dumps(summary.to_json(), indent=2).encode() + b"\n")
    write_seal(store, summary.shards)


def repair_summary(store: Store, summary: Summary) -> None:
    """Write the summary and the seal of a complete output if a kill prevented it.

    A sealed output is not touched: what differs from its seal was altered later.
    """
    if not is_sealed(store):
        write_summary(store, summary)


def stored_summary(store: Store) -> dict[str, Any] | None:
    """Return the content of ``summary.json``; empty if it is missing, None if damaged."""
    data = store.read(SUMMARY)
    if data is None:
        return {}
    try:
        stored = json.loads(data)
        for name, kind in _READ_AGAIN.items():
            if stored.get(name) is not None:
                _require(stored[name], kind)
        return dict(stored)
    except (ValueError, TypeError, AttributeError):
        return None


def _skipped_before(store: Store) -> dict[str, int]:
    return (stored_summary(store) or {}).get("skipped") or {}


def _require(value: Any, kind: Any) -> None:
    """Raise TypeError unless a value of a JSON file is of a kind, as in :data:`STATISTICS`."""
    if isinstance(kind, set):
        _require(value, dict)
        for inner in value.values():
            _require(inner, *kind)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise TypeError(value)
    elif isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(value)


def _total(counts: Any) -> dict[str, Any]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _times(seconds: Mapping[str, float], rows: int) -> dict[str, StageTime]:
    return {
        stage: StageTime(round(spent, 3), round(rows / spent, 3) if spent else None)
        for stage in TIMED_STAGES
        if (spent := seconds.get(stage, 0.0))
    }
