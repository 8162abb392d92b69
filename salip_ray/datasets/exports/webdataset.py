"""WebDataset: tar shards ``PART-000000.tar`` of ``KEY.png``, ``KEY.mask.png`` and ``KEY.json``."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    PROVENANCE,
    Split,
    case_name,
    counts,
    describe,
    provenance,
)
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.exports.pixels import png
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError
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
    if shard_size < 1:
        raise ConfigError(f"--shard-size must be at least 1, found {shard_size}")
    with destination_of(
        location, describe("webdataset", labels, split, shard_size=shard_size), storage_options
    ) as destination:
        skipped = Unreadable(labels, destination)
        for part, indices in split.parts(labels).items():
            for number, start in enumerate(range(0, len(indices), shard_size)):
                name = f"{part}-{number:06d}.tar"
                entries = [labels.entries[index] for index in indices[start : start + shard_size]]
                if destination.has(name):
                    skipped.carry_over(entries)
                    continue
                shard = _shard(labels, entries, skipped)
                skipped.save()
                destination.write(name, shard)
        written = skipped.finish(len(labels))
        destination.write(PROVENANCE, provenance(labels, split, skipped.reasons))
        destination.complete(**counts(labels))
        return written


def _shard(labels: PseudoLabels, entries: list[Entry], skipped: Unreadable) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            sample = skipped.sample(entry)
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
