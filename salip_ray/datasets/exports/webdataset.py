"""WebDataset: tar shards ``PART-000000.tar`` of ``KEY.png``, ``KEY.mask.png`` and ``KEY.json``."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from functools import partial
from typing import Any

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    Split,
    case_name,
)
from salip_ray.datasets.exports.frame import image_export, write_shards
from salip_ray.datasets.exports.pixels import png
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.layout import label_map_member
from salip_ray.output.masks import encode_png


def export(
    labels: PseudoLabels,
    location: str,
    *,
    shard_size: int = 500,
    split: Split = NO_SPLIT,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write shards of ``shard_size`` images; return the number of images.

    The mask PNG holds class ids, and 255 (65535 in 16-bit maps) for pixels to ignore.

    Raises:
        ConfigError: ``shard_size`` is below 1.
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    with image_export(
        "webdataset", labels, location, split, storage_options, shard_size=shard_size
    ) as (destination, reader):
        write_shards(
            destination,
            reader,
            labels,
            split,
            shard_size,
            name=lambda part, number, _count: f"{part}-{number:06d}.tar",
            shard=partial(_shard, labels, reader),
        )
        return reader.finish(len(labels))


def _shard(labels: PseudoLabels, reader: Unreadable, entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            sample = reader.sample(entry)
            if sample is None:
                continue
            facts = {
                "image_id": entry.image_id,
                "uri": entry.uri,
                "confidence": {k: json_figure(v) for k, v in entry.confidences.items()},
                "classes": labels.class_ids,
                "ignore_index": labels.ignore_index,
            }
            key = case_name(entry)
            for name, data in (
                (f"{key}.png", png(sample["image"])),
                (label_map_member(key), encode_png(sample["labels"])),
                (f"{key}.json", json.dumps(facts, ensure_ascii=False).encode()),
            ):
                # Headers without host or time: the same labels give the same bytes.
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
