"""Labels as a Ray Data dataset, for training that runs on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from ray.data import Dataset

from salip_ray.datasets.pseudo_labels import PseudoLabels


class _Load:
    """Reads a row of the index into a sample; one per worker, so that connections are kept."""

    def __init__(self, labels: PseudoLabels) -> None:
        self.labels = labels

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        item = self.labels[int(row["index"])]
        return item if isinstance(item, dict) else {"item": np.asarray(item)}


def feed(labels: PseudoLabels, *, concurrency: int = 2, cpus: float = 1.0) -> Dataset:
    """A lazy dataset of the items of ``labels``, one row each.

    Columns are those of :class:`~salip_ray.datasets.pseudo_labels.Sample`, or those of the dict
    that the transform returns. Only indices leave the driver; ``concurrency`` actors read
    images and masks, with ``cpus`` CPUs each. Works with ``iter_torch_batches`` and Ray Train if
    that the transform brings images to one size.
    """
    indices = ray.data.range(len(labels)).rename_columns({"id": "index"})
    items: Dataset = indices.map(
        _Load,
        fn_constructor_args=(labels,),
        compute=ray.data.ActorPoolStrategy(size=concurrency),
        num_cpus=cpus,
    )
    return items
