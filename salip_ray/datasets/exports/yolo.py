"""YOLO segmentation: ``images/PART``, ``labels/PART`` with polygons, ``data.yaml``.

A polygon has no holes and one outline: each part of a mask becomes a line of its own, holes are
filled, and pixels to ignore are background, for the format knows no such thing.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from salip_ray.datasets.exports.cases import (
    PROVENANCE,
    Parts,
    about,
    cases,
    consecutive,
    provenance,
    rgb_png,
)
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.masks import decode_rle
from salip_ray.schema import Mask

_SMALLEST = 3  # corners
#: Of a pixel, a little before it: found again by who rounds down and by who rounds to the nearest.
_MIDDLE = 0.45
#: Corners of a pixel, a little within it, so that who rounds down does not find its neighbours.
_PIXEL = np.array([(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])
Corners = npt.NDArray[Any]  #: x, y of each, shape [N, 2]


def export(
    labels: PseudoLabels,
    location: str,
    *,
    parts: Parts = Parts(),  # noqa: B008  (frozen)
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write images, polygons and ``data.yaml``; returns the number of images.

    Class numbers count from 0, in the order of class ids.

    Raises:
        OutputError: the location holds something else.
        InputError: an image cannot be read.
    """
    destination = Destination(location, about("yolo", labels, parts), storage_options)
    ids = consecutive(labels.class_ids)
    for part, case, entry in cases(labels, parts):
        image_file, label_file = f"images/{part}/{case}.png", f"labels/{part}/{case}.txt"
        if destination.has(image_file, label_file):
            continue
        lines = [
            f"{ids[cell['class_id']] - 1} " + " ".join(f"{value:.6g}" for value in outline)
            for cell in labels.masks(entry)
            for outline in outlines(decode_rle(cell["rle"]))
        ]
        destination.write(label_file, "\n".join(lines) + "\n")
        destination.write(image_file, rgb_png(labels.images.load(entry.picture)))
    names = {ids[class_id] - 1: label for label, class_id in labels.class_ids.items()}
    description = {
        "train": "images/train",
        "val": "images/val" if parts.val else "images/train",
        "names": dict(sorted(names.items())),
    }
    destination.write("data.yaml", yaml.safe_dump(description, sort_keys=False))
    destination.write(PROVENANCE, provenance(labels, parts))
    destination.complete(images_written=len(labels))
    return len(labels)


def outlines(mask: Mask) -> list[list[float]]:
    """The outer outline of each part of a mask: x, y, x, y, ... as shares of width and height.

    Corners are the middles of the outermost pixels, which readers rasterise with OpenCV. Parts that
    are lines or points get the corners of their pixels.
    """
    height, width = mask.shape
    marked = mask.astype(np.uint8)
    found, _ = cv2.findContours(marked, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    exact, _ = cv2.findContours(marked, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [
        (_corners(smooth[:, 0, :], plain[:, 0, :]) / (width, height)).ravel().tolist()
        for smooth, plain in zip(found, exact, strict=True)
    ]


def _corners(smooth: Corners, plain: Corners) -> Corners:
    """Corners of a part, in pixels, from its outline with few corners and from that with all."""
    for outline in (smooth, plain):  # of few pixels the first leaves too little
        if len(outline) >= _SMALLEST:
            return outline + _MIDDLE
    corners = (plain[:, None, :] + _PIXEL).reshape(-1, 2)
    hull: Corners = cv2.convexHull(corners.astype(np.float32))[:, 0, :]
    return hull
