"""Step 1, second half: from the masks of all points to candidates without duplicates.

What SAM's decoder gives is kept apart from what the thresholds leave of it, so that a search over
thresholds decodes once. The order of things is the official generator's.

Small holes and islands of a mask, found in the part of the image that the mask takes up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import box_area, nms

from salip_ray.config import ProposeConfig
from salip_ray.schema import Box, Candidate, Mask, Size


@dataclass(frozen=True)
class Parts:
    """n masks as columns, on the CPU, in the frame of the working image.

    ``masks`` are bit-packed rows, [n, ceil(h * w / 8)]: thousands of dense masks would not fit.
    """

    masks: Tensor
    boxes: Tensor  # [n, 4] xyxy, inclusive
    predicted_iou: Tensor  # [n]
    stability: Tensor  # [n]
    points: Tensor  # [n, 2] xy, float64
    crop_boxes: Tensor  # [n, 4] xyxy, end exclusive

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, keep: Tensor) -> Parts:
        return Parts(*(getattr(self, field.name)[keep] for field in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[Parts]) -> Parts:
        """One after the other."""
        return Parts(
            *(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Parts))
        )


def settle(views: Sequence[Parts], knobs: ProposeConfig, size: Size) -> list[Candidate]:
    """Candidates from all that was decoded in the views of an image.

    Args:
        views: the parts of each, decoded with quality thresholds not above those of ``knobs``.
        knobs: thresholds of quality and overlap, and ``min_mask_region_area``.
        size: height and width of the working image.
    """
    return merge([without_duplicates(parts, knobs) for parts in views], knobs, size)


def without_duplicates(parts: Parts, knobs: ProposeConfig) -> Parts:
    """Those parts of a view that are good enough, and no duplicates of better ones."""
    if knobs.pred_iou_thresh > 0:
        parts = parts[parts.predicted_iou > knobs.pred_iou_thresh]
    if knobs.stability_score_thresh > 0:
        parts = parts[parts.stability >= knobs.stability_score_thresh]
    return parts[nms(parts.boxes.float(), parts.predicted_iou, knobs.box_nms_thresh)]


def merge(views: Sequence[Parts], knobs: ProposeConfig, size: Size) -> list[Candidate]:
    """The candidates of all views together, without duplicates between them, and clean."""
    parts = Parts.concatenate(views)
    if knobs.crop_n_layers > 0:
        # Of duplicates between views, the one seen in the smaller crop is kept.
        scores = 1 / box_area(parts.crop_boxes)
        parts = parts[nms(parts.boxes.float(), scores, knobs.crop_nms_thresh)]
    if knobs.min_mask_region_area > 0:
        parts = _clean(parts, size, knobs)
    return list(_candidates(parts, size))


def _clean(parts: Parts, size: Size, knobs: ProposeConfig) -> Parts:
    """Remove small holes and islands, then the duplicates that this makes.

    A mask that needed no cleaning wins over one that did.
    """
    if not len(parts):
        return parts
    cleaned, untouched = [], []
    for mask in unpack(parts.masks, size):
        mask, holes = without_small_regions(mask, knobs.min_mask_region_area, holes=True)
        mask, islands = without_small_regions(mask, knobs.min_mask_region_area, holes=False)
        cleaned.append(torch.as_tensor(mask))
        untouched.append(float(not holes and not islands))
    masks = torch.stack(cleaned)
    boxes = mask_boxes(masks)
    threshold = max(knobs.box_nms_thresh, knobs.crop_nms_thresh)
    keep = nms(boxes.float(), torch.tensor(untouched), threshold)
    clean = Parts(
        masks=pack(masks),
        boxes=boxes,
        predicted_iou=parts.predicted_iou,
        stability=parts.stability,
        points=parts.points,
        crop_boxes=parts.crop_boxes,
    )
    return clean[keep]


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes of boolean masks [n, h, w]: int64 xyxy, inclusive, [n, 4]; zeros for an empty mask.

    As the official ``batched_mask_to_box``, from one look at every pixel each way.
    """
    if masks.device.type == "cpu":  # NumPy's reductions of bytes are several times torch's
        dense = masks.numpy()
        rows, columns = torch.as_tensor(dense.any(axis=2)), torch.as_tensor(dense.any(axis=1))
    else:
        rows, columns = masks.any(dim=2), masks.any(dim=1)
    sides = []
    for filled in (columns, rows):
        last = filled.shape[1] - 1
        bits = filled.to(torch.uint8)
        sides.append((bits.argmax(dim=1), last - bits.flip(1).argmax(dim=1)))
    (left, right), (top, bottom) = sides
    boxes = torch.stack([left, top, right, bottom], dim=1)
    return boxes * rows.any(dim=1, keepdim=True)


def _candidates(parts: Parts, size: Size) -> Iterator[Candidate]:
    for index, mask in enumerate(unpack(parts.masks, size)):
        x, y = parts.points[index].tolist()
        x0, y0, x1, y1 = parts.crop_boxes[index].tolist()
        yield Candidate(
            id=index,
            mask=mask,
            area=int(mask.sum()),
            box=_box(parts.boxes[index]),
            predicted_iou=float(parts.predicted_iou[index]),
            stability_score=float(parts.stability[index]),
            point=(x, y),
            crop_box=(x0, y0, x1 - 1, y1 - 1),
        )


def _box(box: Tensor) -> Box:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1


def no_parts(size: Size) -> Parts:
    """None of a working image of that height and width."""
    return Parts(
        masks=pack(torch.zeros(0, *size, dtype=torch.bool)),
        boxes=torch.zeros(0, 4, dtype=torch.int64),
        predicted_iou=torch.zeros(0),
        stability=torch.zeros(0),
        points=torch.zeros(0, 2, dtype=torch.float64),
        crop_boxes=torch.zeros(0, 4, dtype=torch.int64),
    )


def pack(masks: Tensor) -> Tensor:
    """Boolean [n, h, w] -> bits, uint8 [n, ceil(h * w / 8)] on the CPU."""
    return torch.as_tensor(np.packbits(masks.flatten(1).cpu().numpy(), axis=1))


def unpack(bits: Tensor, size: Size) -> Iterator[npt.NDArray[np.bool_]]:
    """The dense [h, w] masks of :func:`pack`, one after the other."""
    height, width = size
    for row in bits.numpy():
        yield np.unpackbits(row, count=height * width).reshape(size).view(np.bool_)


_Window = tuple[slice, slice]


def without_small_regions(mask: Mask, min_area: int, *, holes: bool) -> tuple[Mask, bool]:
    """Fill the holes, or drop the islands, of fewer than ``min_area`` pixels.

    The official ``remove_small_regions``, without its sort of all pixels (``np.isin``).

    Returns:
        The mask, and whether it changed. Of islands that are all small the largest stays.
    """
    window = _window(mask)
    n_labels, regions, sizes = _regions(mask[window] ^ holes)
    small = sizes < min_area
    if holes and any(small[label - 1] for label in _cut(regions, window, mask.shape) if label):
        # The background at the window's sides goes on outside: how far matters here.
        window = np.s_[:, :]
        n_labels, regions, sizes = _regions(~mask)
        small = sizes < min_area
    if not small.any():
        return mask, False
    kept = np.zeros(n_labels, dtype=np.bool_)
    if holes:
        kept[0], kept[1:] = True, small
    elif small.all():
        kept[1 + int(np.argmax(sizes))] = True
    else:
        kept[1:] = ~small
    clean = mask.copy()
    clean[window] = kept[regions]
    return clean, True


def _window(mask: Mask) -> _Window:
    """Where a mask is, and a pixel or two more on each side.

    It begins at even places: OpenCV numbers regions by blocks of two pixels, and of two islands of
    one size the first must be the same.
    """
    sides = []
    for axis in (1, 0):
        filled = np.flatnonzero(mask.any(axis=axis))
        first, last = (filled[0], filled[-1]) if len(filled) else (0, 0)
        sides.append(slice(max(0, int(first) - 1) // 2 * 2, int(last) + 2))
    return sides[0], sides[1]


def _regions(mask: Mask) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any]]:
    """The number of labels, the label of each pixel (0 outside), and the area of each label > 0."""
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8
    )
    return n_labels, labels, stats[1:, cv2.CC_STAT_AREA]


def _cut(regions: npt.NDArray[Any], window: _Window, shape: tuple[int, ...]) -> set[int]:
    """The labels at those sides of a window at which the image goes on."""
    sides = []
    for axis, (part, length) in enumerate(zip(window, shape, strict=True)):
        if part.start > 0:
            sides.append(regions.take(0, axis))
        if part.stop < length:
            sides.append(regions.take(-1, axis))
    return set(np.unique(np.concatenate(sides)).tolist()) if sides else set()
