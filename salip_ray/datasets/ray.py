"""Labels as a Ray Data dataset, for training on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from ray.data import Dataset

from salip_ray.datasets.pseudo_labels import PseudoLabels


class _LoadItem:
    """Turns an index into an item. One instance per worker, so that connections are reused."""

    def __init__(self, labels: PseudoLabels) -> None:
        self.labels = labels

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        item = self.labels[int(row["index"])]
        return item if isinstance(item, dict) else {"item": np.asarray(item)}


def to_ray(labels: PseudoLabels, *, concurrency: int = 2, cpus: float = 1.0) -> Dataset:
    """Return a lazy dataset of the items of ``labels``, one row each.

    The columns are those of :class:`~salip_ray.datasets.samples.Sample`, or of the dict that the
    transform returns. Only indices leave the driver. ``iter_torch_batches`` and Ray Train need a
    transform that brings all images to one size.

    Args:
        labels: the items.
        concurrency: number of actors that read images and masks.
        cpus: CPUs of each actor.
    """
    indices = ray.data.range(len(labels)).rename_columns({"id": "index"})
    items: Dataset = indices.map(
        _LoadItem,
        fn_constructor_args=(labels,),
        compute=ray.data.ActorPoolStrategy(size=concurrency),
        num_cpus=cpus,
    )
    return items
