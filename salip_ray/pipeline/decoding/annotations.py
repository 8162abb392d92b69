"""What is known about an image beforehand: reference masks, and prompts or candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from salip_ray.cascade.geometry import class_references, component_masks, reference_boxes
from salip_ray.config import Config
from salip_ray.errors import ImageError
from salip_ray.models.registry import needs_refiner
from salip_ray.schema import Box, Given, Image, ImageRef, Mask, Size
from salip_ray.sources.formats.stack import Stack
from salip_ray.sources.locations import public_uri
from salip_ray.sources.mask_files import ClassIds
from salip_ray.sources.prompts import Prompts, boxes_in_image, require_memory
from salip_ray.sources.references import References


def find_prompts(
    picture: ImageRef, image: Image, config: Config, prompts: Prompts | None, stack: Stack
) -> list[tuple[str, Given]] | None:
    """Return class, and box or points, of each prompt of an image; None if no image has prompts.

    The boxes of masks are those of GT-SAM. Without a refiner, masks are the labels. Candidates
    remain masks, too, and their class means nothing.

    Raises:
        ImageError: a prompt is not on the image, or it is not clear which image the boxes are of.
    """
    if prompts is None:
        return None
    size = image.shape[0], image.shape[1]
    if prompts.segments:
        plane = None if stack.plane is None else stack.plane(picture.index or 0)
        segments = prompts.segmented(stack.instance, picture.index, size, plane)
        if prompts.are_candidates:
            return _components(segments.items(), size, config)
        ordered = [s.label for s in config.task.classes if s.label in segments]
        return _prompts_of({label: segments[label] for label in ordered}, config)
    if prompts.masks is None:
        return boxes_in_image(prompts.find(picture), size, config.image, noun=prompts.noun)
    ids = find_class_ids(picture, image, config, prompts.masks, stack)
    if ids is None:
        return []
    if prompts.are_candidates:
        return components_of(ids, config)
    known = [0, *(spec.class_id for spec in config.task.classes)]
    foreign = np.setdiff1d(ids, known) if len(known) > 2 else ()
    if len(foreign):
        shown = ", ".join(map(str, foreign[:5]))
        raise ImageError(
            f"its mask holds the values {shown}, but the class ids of the task are "
            f"{', '.join(map(str, known[1:]))}: set others to 0"
        )
    return _prompts_of(class_references(ids, config.task.classes), config)


def _prompts_of(masks: Mapping[str, Mask], config: Config) -> list[tuple[str, Given]]:
    if not needs_refiner(config):
        return [(label, mask) for label, mask in masks.items() if mask.any()]
    return [(label, box) for label, mask in masks.items() for box in _boxes_of(mask)]


def components_of(ids: ClassIds, config: Config) -> list[tuple[str, Given]]:
    """Return the components of each value above 0 in a map [H, W], and the value as text.

    Raises:
        ImageError: their masks do not fit in ``image.max_bytes``.
    """
    values = np.unique(ids[ids > 0]).tolist()
    size = ids.shape[0], ids.shape[1]
    require_memory(len(values), size, config.image, "candidates")
    return _components(((str(value), ids == value) for value in values), size, config)


def _components(
    masks: Iterable[tuple[str, Mask]], size: Size, config: Config
) -> list[tuple[str, Given]]:
    parts: list[tuple[str, Given]] = []
    for label, mask in masks:
        parts += [(label, part) for part in component_masks(mask)]
        require_memory(len(parts), size, config.image, "candidates")
    return parts


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
