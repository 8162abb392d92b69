"""YOLO segmentation: ``images/PART``, ``labels/PART`` with polygons, ``data.yaml``.

A polygon has one outline and no holes: each connected region of an object becomes a line, holes are
filled, and pixels to ignore are background. An image without a label has an empty text file.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    Split,
    cases,
    consecutive,
)
from salip_ray.datasets.exports.frame import image_export
from salip_ray.datasets.exports.pixels import image_png
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError
from salip_ray.output.cells import instance_cells
from salip_ray.output.masks import decode_rle
from salip_ray.schema import Mask

_FEWEST_CORNERS = 3
#: Position within a pixel, just before its middle: readers that round down and readers that round
#: to the nearest both get the pixel back.
_MIDDLE = 0.45
#: Corners just inside a pixel, so that rounding down does not give its neighbours.
_PIXEL = np.array([(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])
Corners = npt.NDArray[Any]  #: x, y of each, shape [N, 2]


def export(
    labels: PseudoLabels,
    location: str,
    *,
    split: Split = NO_SPLIT,
    val_on_train: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write images, polygons and ``data.yaml``; return the number of images.

    Class numbers count from 0, in the order of class ids.

    Args:
        labels: what to export.
        location: an empty or new location, or that of the same export, to resume it.
        split: YOLO needs a validation set, so ``split.val`` must be above 0.
        val_on_train: without a split, name the training images as the validation set.
        storage_options: fsspec options of ``location``.

    Raises:
        ConfigError: there is no split, and ``val_on_train`` is not set.
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    if not split.val and not val_on_train:
        raise ConfigError(
            "YOLO needs images to validate on: give --val 0.2 to set a fifth of them aside, "
            "or --val-on-train to validate on the training images"
        )
    with image_export("yolo", labels, location, split, storage_options) as (destination, reader):
        ids = consecutive(labels.class_ids)
        for part, case, entry in cases(labels, split):
            image_file, label_file = f"images/{part}/{case}.png", f"labels/{part}/{case}.txt"
            if destination.has(image_file, label_file):
                continue
            pixels = reader.image(entry)
            if pixels is None:
                continue
            lines = [
                f"{ids[cell['class_id']] - 1} "
                + " ".join(f"{value:.6g}" for value in outline)
                + "\n"
                for cell in labels.masks(entry)
                for item in instance_cells(cell)
                for outline in outlines(decode_rle(item["rle"]))
            ]
            destination.write(label_file, "".join(lines))
            destination.write(image_file, image_png(pixels))
        written = reader.finish(len(labels))
        names = {ids[class_id] - 1: label for label, class_id in labels.class_ids.items()}
        description = {
            "train": "images/train",
            "val": "images/val" if split.val else "images/train",
            "names": dict(sorted(names.items())),
        }
        destination.write("data.yaml", yaml.safe_dump(description, sort_keys=False))
        return written


def outlines(mask: Mask) -> list[list[float]]:
    """Return the outer outline of each connected region: x, y, x, y, ... as shares of the image.

    Corners are the middles of the outermost pixels, which readers rasterise with OpenCV. Regions
    that are lines or points get the corners of their pixels.
    """
    height, width = mask.shape
    binary = mask.astype(np.uint8)
    smooth, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    exact, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [
        (_corners(few[:, 0, :], all_[:, 0, :]) / (width, height)).ravel().tolist()
        for few, all_ in zip(smooth, exact, strict=True)
    ]


def _corners(few: Corners, exact: Corners) -> Corners:
    """Return the corners of a region in pixels, from its smooth and its exact outline."""
    for outline in (few, exact):  # the smooth outline of a small region may collapse
        if len(outline) >= _FEWEST_CORNERS:
            return outline + _MIDDLE
    corners = (exact[:, None, :] + _PIXEL).reshape(-1, 2)
    hull: Corners = cv2.convexHull(corners.astype(np.float32))[:, 0, :]
    return hull
