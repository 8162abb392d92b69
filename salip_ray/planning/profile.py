"""Measure the cost of an image on this machine, by stage, on a few images of the job.

Ray is not started. On a CPU, one process per core measures at the same time: a core is slower if
the other cores are busy.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from salip_ray.cluster.session import local_cores
from salip_ray.config import Config
from salip_ray.errors import ConfigError, InputError
from salip_ray.models.task_check import require_taught_classes
from salip_ray.output.commit import parquet_bytes, tar_bytes
from salip_ray.pipeline.actors import StageActor
from salip_ray.pipeline.decoding.decode import fetch_and_decode
from salip_ray.pipeline.inputs import list_input
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.stages import stages_of
from salip_ray.schema import LABEL_SCHEMA

_MAX_PROCESSES = 8  # more do not improve the measure, and each holds the models


@dataclass(frozen=True)
class Profile:
    """Means over the images measured.

    Attributes:
        images: number of measured images.
        device: the device of the models, ``cpu`` or ``cuda``.
        cores: number of cores of the machine.
        seconds: seconds per image of one worker with one thread, by stage: ``fetch`` (and decode),
            the stages of the cascade, and ``commit``.
        row_bytes: size of a row between PROPOSE and RETRIEVE, its largest.
        output_bytes: bytes written per image.
    """

    images: int
    device: str
    cores: int
    seconds: dict[str, float]
    row_bytes: float
    output_bytes: float

    def save(self, path: Path) -> None:
        """Write the profile as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Profile:
        """Read a profile that :meth:`save` wrote.

        Raises:
            ConfigError: the file is missing or is not a profile.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return Profile(**{field.name: data[field.name] for field in fields(Profile)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"profile {path} cannot be read: {type(error).__name__}: {error}"
            ) from None


def measure(location: str, config: Config, *, images: int = 8) -> Profile:
    """Profile a job on a few of its images, spread evenly over the input.

    Raises:
        InputError: the input has no image, or none of the chosen ones can be read.
    """
    require_taught_classes(config)
    table = list_input(location, config).manifest.table
    chosen = np.unique(np.linspace(0, table.num_rows - 1, images).round().astype(int))
    sample = table.take(pa.array(chosen)).combine_chunks()
    cores = local_cores()
    processes = _processes(config.run.device, cores)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        measured = list(pool.map(_measure_here, [sample] * processes, [config] * processes))
    if not all(one["images"] for one in measured):
        raise InputError(f"none of the {len(chosen)} images measured in {location} can be read")
    return Profile(
        images=measured[0]["images"],
        device=measured[0]["device"],
        cores=cores,
        seconds={
            stage: statistics.fmean(one["seconds"][stage] for one in measured)
            for stage in measured[0]["seconds"]
        },
        row_bytes=measured[0]["row_bytes"],
        output_bytes=measured[0]["output_bytes"],
    )


def _processes(device: str, cores: int) -> int:
    """Return how many processes measure at once: one on a GPU, where several would take turns.

    Args:
        device: ``run.device``.
        cores: number of cores of the machine.
    """
    from salip_ray.models.devices import resolve_device

    return 1 if resolve_device(device).type == "cuda" else min(cores, _MAX_PROCESSES)


def _measure_here(sample: pa.Table, config: Config) -> dict[str, Any]:
    reporter = StageReporter()
    began = time.perf_counter()
    rows = _single(fetch_and_decode(sample, config, None, reporter))
    seconds = {"fetch": (time.perf_counter() - began) / len(rows)}
    rows = [row for row in rows if row["status"][0].as_py() != "error"]
    figures: dict[str, Any] = {"images": len(rows), "seconds": seconds, "row_bytes": 0.0}
    if not rows:
        return {**figures, "device": "", "output_bytes": 0.0}
    for name, kind in stages_of(config).items():
        stage = StageActor([kind], config, 1, reporter)
        list(stage(rows[0]))  # caches that the first call fills
        began = time.perf_counter()
        rows = [done for row in rows for done in stage(row)]
        seconds[name] = (time.perf_counter() - began) / len(rows)
        figures["device"] = stage.device.partition(":")[0]
        figures["row_bytes"] = max(figures["row_bytes"], _mean_bytes(rows))
    table = pa.concat_tables(rows, promote_options="permissive")
    began = time.perf_counter()
    labels = [table[field.name].cast(field.type) for field in LABEL_SCHEMA]
    written = len(parquet_bytes(pa.table(labels, schema=LABEL_SCHEMA)))
    written += len(tar_bytes(table, {spec.label: spec.class_id for spec in config.task.classes}))
    seconds["commit"] = (time.perf_counter() - began) / len(rows)
    return {**figures, "output_bytes": written / len(rows)}


def _single(tables: Iterable[pa.Table]) -> list[pa.Table]:
    """Return one table per row."""
    return [table.slice(index, 1) for table in tables for index in range(table.num_rows)]


def _mean_bytes(rows: Sequence[pa.Table]) -> float:
    return statistics.fmean(row.nbytes for row in rows)
