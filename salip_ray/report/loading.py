"""Load the images of some rows, a few files at a time, if they still exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from salip_ray.config import ImageConfig
from salip_ray.errors import OutputError
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Image, ImageRef
from salip_ray.sources.decode import decode, open_stack, picture_at
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats.stack import Stack
from salip_ray.sources.privacy import is_pseudonym, scrub

_TOGETHER = 8  # images fetched at once


def load_pictures(
    labels: LabelOutput,
    rows: Sequence[Mapping[str, Any]],
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, Image | None, str]]:
    """Yield the pixels of each row, in an order that opens each volume once.

    Yields:
        The number of the row; its pixels (RGB [H, W, 3]) or None; and why there are none, without
        names that the run hid.
    """
    try:
        pictures = [labels.image_ref(row) for row in rows]
    except OutputError as problem:  # names are hidden, and the manifest is elsewhere
        yield from ((number, None, _note(problem)) for number in range(len(rows)))
        return
    for some in _files_at_once(pictures):
        uris = list(dict.fromkeys(pictures[number].uri for number in some))
        fetched = dict(zip(uris, fetch_all(uris, storage_options, attempts=2), strict=True))
        stacks: dict[str, Stack] = {}
        for number in some:
            row, picture = rows[number], pictures[number]
            yield (
                number,
                *_decoded(row, picture, fetched[picture.uri], stacks, labels.image_config),
            )


def _files_at_once(pictures: Sequence[ImageRef]) -> Iterator[list[int]]:
    """Yield the numbers of images to fetch together: of a few files, or of one volume."""
    volumes: dict[str, list[int]] = {}
    files: list[int] = []
    for number, picture in enumerate(pictures):
        if picture.index is None:
            files.append(number)
        else:
            volumes.setdefault(picture.uri, []).append(number)
    yield from (files[start : start + _TOGETHER] for start in range(0, len(files), _TOGETHER))
    yield from volumes.values()


def _decoded(
    row: Mapping[str, Any],
    picture: ImageRef,
    data: bytes | Exception,
    stacks: dict[str, Stack],
    limits: ImageConfig,
) -> tuple[Image | None, str]:
    try:
        if isinstance(data, Exception):
            raise data
        if picture.index is None:
            image = decode(data, picture.uri, limits)
        else:
            if picture.uri not in stacks:
                stacks[picture.uri] = open_stack(data, picture.uri, limits)
            image = picture_at(stacks[picture.uri], picture.index)
    except Exception as problem:  # noqa: BLE001  (a report shows what still exists)
        message = str(problem)
        if is_pseudonym(row["uri"]):
            message = scrub(message, (picture.uri,), row["uri"])
        return None, _note(message)
    if row["height"] and image.shape[:2] != (row["height"], row["width"]):
        return None, (
            f"The image is now {image.shape[0]} x {image.shape[1]} pixels (height x width), "
            f"but was {row['height']} x {row['width']} when it was labelled."
        )
    return image, ""


def _note(problem: object) -> str:
    return f"The image cannot be shown: {problem}"
