"""How far a job is, from its output alone and from any machine: ``salip-ray status``.

What is committed is counted from the shards' statistics. Who is at it, how far ahead of its last
commit and how fast, is in the lease that the driver renews; where that has run out nobody is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq

from salip_ray.labels.reading import Labels
from salip_ray.sources.locations import join

State = Literal["running", "stopped", "complete"]
_LEASE = "lease.json"
_LAST_STAGE = "refine"


@dataclass(frozen=True)
class Driver:
    """Who writes the output, as the lease says."""

    host: str
    pid: int
    started: str
    renewed: str


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes:
        output: its public URI.
        state: ``running`` where a driver holds the output, ``complete`` where all is committed,
            else ``stopped``.
        images: of the manifest.
        done: images in committed shards, the failed ones among them.
        failed: images whose row is an error.
        ahead: images labelled by the running driver; the last of them not committed yet.
        shards: of the manifest.
        committed: shards that are there.
        status: committed rows by status.
        images_per_second: of the running driver since it began to label.
        seconds_left: at that rate.
        driver: the running one.
    """

    output: str
    state: State
    images: int
    done: int
    failed: int
    ahead: int
    shards: int
    committed: int
    status: dict[str, int] = field(default_factory=dict)
    images_per_second: float | None = None
    seconds_left: float | None = None
    driver: Driver | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def read_status(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    now: datetime | None = None,
) -> Status:
    """Read how far a job is.

    Args:
        output: a location that ``salip-ray label`` writes or wrote.
        storage_options: fsspec's, for a remote output.
        now: the time; by default that of this machine's clock.

    Raises:
        OutputError: there is no ``run.json`` that this version can read, or no manifest yet.
    """
    labels = Labels.open(output, storage_options)
    labels._fs.invalidate_cache()
    images = labels.n_images()
    names = [f"stats/{name.removesuffix('.parquet')}.json" for name in labels.shards]
    stats = [json.loads(data) for data in _read_all(labels, names)]
    counts: Counter[str] = Counter()
    for shard in stats:
        counts.update(shard["status"])
    done, shards = counts.total(), _n_shards(labels)
    lease = _live_lease(labels, now or datetime.now(UTC))
    progress = lease.get("progress", {}) if lease else {}
    ahead = int(progress.get("rows", {}).get(_LAST_STAGE, 0))
    seconds = float(progress.get("seconds", 0.0))
    rate = ahead / seconds if ahead and seconds else None
    left = max(0, int(progress.get("images", images - done)) - ahead)
    return Status(
        output=labels.uri,
        state="running" if lease else "complete" if len(names) >= shards else "stopped",
        images=images,
        done=done,
        failed=counts["error"],
        ahead=ahead,
        shards=shards,
        committed=len(names),
        status=dict(sorted(counts.items())),
        images_per_second=round(rate, 3) if rate else None,
        seconds_left=round(left / rate, 1) if rate else None,
        driver=_driver(lease) if lease else None,
    )


def _read_all(labels: Labels, names: list[str]) -> list[bytes]:
    if not names:
        return []
    found = labels._fs.cat([join(labels._root, name) for name in names], on_error="omit")
    return list(found.values()) if isinstance(found, dict) else [found]


def _n_shards(labels: Labels) -> int:
    with labels._fs.open(join(labels._root, "manifest.parquet"), "rb") as stream:
        last = pc.max(pq.read_table(stream, columns=["shard"])["shard"]).as_py()
    return 0 if last is None else int(last) + 1


def _live_lease(labels: Labels, now: datetime) -> dict[str, Any] | None:
    try:
        lease = json.loads(labels._fs.cat_file(join(labels._root, _LEASE)))
        live = datetime.fromisoformat(lease["expires"]) > now
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return dict(lease) if live else None


def _driver(lease: Mapping[str, Any]) -> Driver:
    return Driver(
        host=str(lease.get("host")),
        pid=int(lease.get("pid", 0)),
        started=str(lease.get("started")),
        renewed=str(lease.get("renewed")),
    )
