"""One palette PNG per image with the name of the image: ``patient0/view1.png`` for ``view1.jpg``.

The palette index of a pixel is its class id; above 254 classes the PNG is 16-bit grey. Folders
below the images' common folder stay. A slice has its number at the end of its name. If the run hid
names, or two images would have the same name, the name ends with a part of the image's id. Maps of
objects are 16-bit grey: each object of an image is a value.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from typing import Any

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    Split,
    case_name,
)
from salip_ray.datasets.exports.frame import image_export
from salip_ray.datasets.exports.review import mask_png
from salip_ray.datasets.images import folder_of
from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.masks import encode_png
from salip_ray.sources.formats.names import split_member, stem
from salip_ray.sources.privacy import is_pseudonym


def export(
    labels: PseudoLabels,
    location: str,
    *,
    split: Split = NO_SPLIT,
    instances: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write label maps; return the number of images. No image is read.

    With a split, the maps are in the folders ``train`` and ``val``.

    Args:
        labels: what to export.
        location: an empty or new location, or that of the same export, to resume it.
        split: which images go to which part.
        instances: write maps of objects instead.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else.
    """
    names = file_names(labels)
    # None, so that earlier exports can be resumed.
    with image_export(
        "png", labels, location, split, storage_options, names=names, instances=instances or None
    ) as (destination, _):
        for part, indices in split.parts(labels).items():
            for index in indices:
                entry = labels.entries[index]
                file = f"{part}/{names[index]}" if split.val else names[index]
                if not destination.has(file):
                    if instances:
                        data = encode_png(labels.reader.instance_map(entry))
                    else:
                        data = mask_png(labels.label_map(entry))
                    destination.write(file, data)
    return len(labels)


def file_names(labels: PseudoLabels) -> list[str]:
    """Return the name of each image's label map, unique among all."""
    plain = [_plain_name(entry, labels.reader.images.base) for entry in labels.entries]
    uses = Counter(name.casefold() for name in plain)
    return [
        f"{case_name(entry)}.png" if is_pseudonym(entry.uri) or uses[name.casefold()] > 1 else name
        for entry, name in zip(labels.entries, plain, strict=True)
    ]


def _plain_name(entry: Entry, base: str) -> str:
    folder = folder_of(entry.picture.uri)[len(base) :]
    member, archive = split_member(entry.picture.uri)
    if archive:
        folder += "/" + posixpath.dirname(member.partition("://")[2])
    # Members of archives may have ".." and empty parts in their names.
    folder = "/".join(part for part in folder.split("/") if part not in {"", ".", ".."})
    number = "" if entry.slice is None else f"-{entry.slice:04d}"
    name = f"{stem(entry.picture.uri)}{number}.png"
    return f"{folder}/{name}" if folder else name
