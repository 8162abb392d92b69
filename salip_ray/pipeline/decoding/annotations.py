"""What is known about an image beforehand: its reference masks, and the boxes that are given."""

from __future__ import annotations

import numpy as np

from salip_ray.cascade.geometry import class_references, reference_boxes
from salip_ray.config import Config
from salip_ray.errors import ImageError
from salip_ray.schema import Box, Image, ImageRef, Mask, Points
from salip_ray.sources.formats.stack import Stack
from salip_ray.sources.locations import public_uri
from salip_ray.sources.mask_files import ClassIds
from salip_ray.sources.prompts import Prompts, boxes_in_image
from salip_ray.sources.references import References


def find_prompts(
    picture: ImageRef, image: Image, config: Config, prompts: Prompts | None, stack: Stack
) -> list[tuple[str, Box | Points]] | None:
    """Return class, and box or points, of each prompt of an image; None if no image has prompts.

    The boxes of masks are those of GT-SAM.

    Raises:
        ImageError: a prompt is not on the image, or it is not clear which image the boxes are of.
    """
    if prompts is None:
        return None
    if prompts.segments:
        size = image.shape[0], image.shape[1]
        segments = prompts.segmented(stack.instance, picture.index, size)
        ordered = [s.label for s in config.task.classes if s.label in segments]
        return [(label, box) for label in ordered for box in _boxes_of(segments[label])]
    if prompts.masks is None:
        size = image.shape[0], image.shape[1]
        return boxes_in_image(prompts.find(picture), size, config.image)
    ids = find_class_ids(picture, image, config, prompts.masks, stack)
    if ids is None:
        return []
    known = [0, *(spec.class_id for spec in config.task.classes)]
    foreign = np.setdiff1d(ids, known) if len(known) > 2 else ()
    if len(foreign):
        shown = ", ".join(map(str, foreign[:5]))
        raise ImageError(
            f"its mask holds the values {shown}, but the class ids of the task are "
            f"{', '.join(map(str, known[1:]))}: set others to 0"
        )
    masks = class_references(ids, config.task.classes)
    return [(label, box) for label, mask in masks.items() for box in _boxes_of(mask)]


def _boxes_of(mask: Mask) -> list[Box]:
    """Return the boxes of GT-SAM, or that of the largest component if all are too small for it."""
    if boxes := reference_boxes(mask):
        return boxes
    every = reference_boxes(mask, 0.0)
    return sorted(every, key=lambda box: (box[0] - box[2] - 1) * (box[3] - box[1] + 1))[:1]


def find_references(
    picture: ImageRef, image: Image, config: Config, references: References | None, stack: Stack
) -> dict[str, Mask] | None:
    """Return the reference mask of each class, bool [H, W], or None if the image has none.

    Raises:
        ImageError: as for :func:`find_class_ids`.
    """
    ids = find_class_ids(picture, image, config, references, stack)
    return None if ids is None else class_references(ids, config.task.classes)


def find_class_ids(
    picture: ImageRef, image: Image, config: Config, references: References | None, stack: Stack
) -> ClassIds | None:
    """Return the values of the reference mask of an image, [H, W], or None if it has none.

    Raises:
        ImageError: the mask cannot be read, is not on the image's grid, or several images share its
            name.
    """
    if references is None:
        return None
    mask = references.find(picture)
    if mask is None:
        if reason := references.ambiguity(picture):
            raise ImageError(reason)
        return None
    ids = references.load(mask, config.image, count=stack.count, spacing=stack.spacing)
    if ids.shape != image.shape[:2]:
        raise ImageError(
            f"reference mask {public_uri(mask.uri)} has {ids.shape[0]} x {ids.shape[1]} pixels, "
            f"its image {image.shape[0]} x {image.shape[1]}"
        )
    return ids
