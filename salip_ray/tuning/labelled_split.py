"""Choose and read the labelled split of a search: a few images with references."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from salip_ray.config import Config
from salip_ray.errors import InputError
from salip_ray.pipeline.decoding.annotations import find_references
from salip_ray.pipeline.inputs import list_input
from salip_ray.schema import Image, ImageRef, Mask
from salip_ray.sources.decode import only_picture, open_stack
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.locations import public_uri
from salip_ray.sources.privacy import hides_uri, pseudonym
from salip_ray.sources.references import References


@dataclass(frozen=True)
class LabelledImage:
    """An image with a reference.

    Attributes:
        image_id: its id in manifests.
        picture: file and index of its pixels.
        address: the URI to fetch; may carry a signature, unlike ``picture.uri``.
    """

    image_id: str
    picture: ImageRef
    address: str


def labelled_split(
    location: str, references: References, config: Config, *, limit: int, seed: int
) -> tuple[list[LabelledImage], int]:
    """Return up to ``limit`` images to tune on, and the number of images with a reference.

    Images are chosen by a hash of seed and id, so files added to the folder change few of them.

    Raises:
        InputError: there is no image, or none has a reference.
    """
    columns = ["image_id", "uri", "address", "index"]
    rows = list_input(location, config).manifest.table.select(columns).to_pylist()
    references = references.among(row["uri"] for row in rows)
    labelled = [
        LabelledImage(
            row["image_id"],
            ImageRef(row["uri"], row["index"]),
            row["address"] or row["uri"],
        )
        for row in rows
        if references.find(ImageRef(row["uri"], row["index"])) is not None
    ]
    if not labelled:
        raise InputError(
            f"none of the {len(rows):,} images of {public_uri(location)} has a reference mask: "
            "a mask is named as its image is, or listed in an index.csv"
        )
    chosen = {image.image_id: image for image in labelled}
    order = sorted(chosen, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    return [chosen[key] for key in order[:limit]], len(chosen)


def load(
    image: LabelledImage, references: References, config: Config
) -> tuple[Image, Mapping[str, Mask]]:
    """Return the pixels, uint8 RGB [H, W, 3], and the reference of each class, bool [H, W].

    Raises:
        InputError: the image or its mask cannot be read, or their sizes differ.
    """
    (data,) = fetch_all([image.address], config.storage.input, max_bytes=config.image.max_bytes)
    if isinstance(data, Exception):
        raise InputError(str(data))
    stack = open_stack(data, image.picture.uri, config.image)
    index = image.picture.index
    pixels = only_picture(stack) if index is None else stack.picture(index)
    masks = find_references(image.picture, pixels, config, references, stack)
    assert masks is not None, "every chosen image has a reference"
    return pixels, masks


def named(images: Sequence[LabelledImage], config: Config) -> list[dict[str, object]]:
    """Return id, URI and index of each image for the record, without URIs that are private."""
    return [
        {
            "image_id": image.image_id,
            "uri": pseudonym(image.image_id)
            if hides_uri(image.picture.uri, config.privacy)
            else image.picture.uri,
            "index": image.picture.index,
        }
        for image in images
    ]
