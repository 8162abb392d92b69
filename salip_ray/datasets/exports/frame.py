"""The frame of all image exports: claim the location, write the images, describe what was written.

:func:`image_export` is the frame. Exports that write many images into one file write them by
:func:`write_shards`; the others write each of :func:`~salip_ray.datasets.exports.cases.cases`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from salip_ray.datasets.exports.cases import PROVENANCE, Split, counts, describe, provenance
from salip_ray.datasets.exports.destination import Destination, destination_of
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError


@contextlib.contextmanager
def image_export(
    format_name: str,
    labels: PseudoLabels,
    location: str,
    split: Split,
    storage_options: dict[str, Any] | None = None,
    *,
    names: Sequence[str] = (),
    **options: Any,
) -> Iterator[tuple[Destination, Unreadable]]:
    """Claim a location; after the body, write ``provenance.csv`` and complete ``export.json``.

    Args:
        format_name: of the export, as in ``salip-ray export``.
        labels: what to export.
        location: an empty or new location, or that of the same export, to resume it.
        split: of the export.
        storage_options: fsspec options of ``location``.
        names: the exported name of each image; by default
            :func:`~salip_ray.datasets.exports.cases.case_name`.
        options: of the format; an export with other ones is another export.

    Yields:
        Where to write, and the reader of images; the body calls its ``finish`` if it reads any.

    Raises:
        ConfigError: ``shard_size`` is one of the options, and is below 1.
        OutputError: the location holds something else.
    """
    if options.get("shard_size", 1) < 1:
        raise ConfigError(f"--shard-size must be at least 1, found {options['shard_size']}")
    about = describe(format_name, labels, split, **options)
    with destination_of(location, about, storage_options) as destination:
        reader = Unreadable(labels, destination)
        yield destination, reader
        destination.write(PROVENANCE, provenance(labels, split, reader.reasons, names=names))
        destination.complete(**counts(labels))


def write_shards(
    destination: Destination,
    reader: Unreadable,
    labels: PseudoLabels,
    split: Split,
    shard_size: int,
    *,
    name: Callable[[str, int, int], str],
    shard: Callable[[Sequence[Entry]], bytes],
) -> None:
    """Write a file for each ``shard_size`` images of each part, without those that exist.

    Args:
        destination: where to write.
        reader: of the images.
        labels: what to export.
        split: of the export.
        shard_size: images per file.
        name: the name of a file, from its part, its number and the number of files of that part.
        shard: the bytes of a file, from its images.
    """
    for part, indices in split.parts(labels).items():
        starts = range(0, len(indices), shard_size)
        for number, start in enumerate(starts):
            file = name(part, number, len(starts))
            entries = [labels.entries[index] for index in indices[start : start + shard_size]]
            if destination.has(file):
                reader.carry_over(entries)
                continue
            data = shard(entries)
            reader.save()
            destination.write(file, data)
