"""Step 1, second half: from the masks of all points to candidates without duplicates.

:class:`DecodedMasks` holds SAM's masks before the thresholds of :func:`make_candidates`, so that a
search over thresholds decodes once. Filters and their order are those of the official
``SamAutomaticMaskGenerator``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import box_area, nms

from salip_ray.config import Config, ProposeConfig
from salip_ray.schema import Box, Candidate, Mask, Size


@dataclass(frozen=True)
class DecodedMasks:
    """n masks of the decoder as columns, on the CPU, in pixels of the working image.

    Attributes:
        masks: bit-packed, uint8 [n, ceil(h * w / 8)]: thousands of dense masks would not fit.
        boxes: int64 [n, 4], xyxy, inclusive.
        predicted_iou: float32 [n].
        stability: float32 [n].
        points: the prompts, float64 [n, 2], xy.
        crop_boxes: the views, int64 [n, 4], xyxy, end exclusive.
    """

    masks: Tensor
    boxes: Tensor
    predicted_iou: Tensor
    stability: Tensor
    points: Tensor
    crop_boxes: Tensor

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, keep: Tensor) -> DecodedMasks:
        return DecodedMasks(*(getattr(self, field.name)[keep] for field in fields(self)))

    @staticmethod
    def concatenate(groups: Sequence[DecodedMasks]) -> DecodedMasks:
        """Concatenate groups of masks in their order."""
        columns = (
            torch.cat([getattr(group, field.name) for group in groups])
            for field in fields(DecodedMasks)
        )
        return DecodedMasks(*columns)


def make_candidates(
    views: Sequence[DecodedMasks], settings: ProposeConfig, size: Size
) -> list[Candidate]:
    """Make candidates from the masks of all views of an image.

    Args:
        views: masks of each view, decoded with thresholds not above those of ``settings``.
        settings: thresholds of quality and overlap, and ``min_mask_region_area``.
        size: height and width of the working image.
    """
    return merge_views([filter_view(masks, settings) for masks in views], settings, size)


def filter_view(masks: DecodedMasks, settings: ProposeConfig) -> DecodedMasks:
    """Drop the masks of a view that are below a quality threshold or duplicate a better one."""
    if settings.pred_iou_thresh > 0:
        masks = masks[masks.predicted_iou > settings.pred_iou_thresh]
    if settings.stability_score_thresh > 0:
        masks = masks[masks.stability >= settings.stability_score_thresh]
    return masks[nms(masks.boxes.float(), masks.predicted_iou, settings.box_nms_thresh)]


def merge_views(
    views: Sequence[DecodedMasks], settings: ProposeConfig, size: Size
) -> list[Candidate]:
    """Drop duplicates between views, clean the masks, and make them candidates."""
    masks = DecodedMasks.concatenate(views)
    if settings.crop_n_layers > 0:
        # Of duplicates between views, the one from the smaller crop survives.
        scores = 1 / box_area(masks.crop_boxes)
        masks = masks[nms(masks.boxes.float(), scores, settings.crop_nms_thresh)]
    if settings.min_mask_region_area > 0:
        masks = _clean(masks, size, settings)
    return list(_candidates(masks, size))


def within_limits(
    candidates: Sequence[Candidate], config: Config, size: Size
) -> tuple[Candidate, ...]:
    """Return the candidates within the area limits, which are exclusive (step 2).

    With ``retrieve.box_end: exclusive``, candidates that are 1 pixel wide or high are dropped too:
    their crops would be empty.

    Args:
        candidates: of one working image.
        config: its ``task``, ``propose`` and ``retrieve`` sections are used.
        size: height and width of the working image.
    """
    low, high = config.area_limits(*size)
    exclusive = config.retrieve.box_end == "exclusive"
    return tuple(
        c for c in candidates if low < c.area < high and not (exclusive and _is_line(c.box))
    )


def _is_line(box: Box) -> bool:
    x0, y0, x1, y1 = box
    return x0 == x1 or y0 == y1


def _clean(decoded: DecodedMasks, size: Size, settings: ProposeConfig) -> DecodedMasks:
    """Remove small holes and islands, then the duplicates that this makes.

    Of duplicates, a mask that needed no cleaning survives.
    """
    if not len(decoded):
        return decoded
    cleaned, untouched = [], []
    for mask in unpack(decoded.masks, size):
        mask, holes = without_small_regions(mask, settings.min_mask_region_area, holes=True)
        mask, islands = without_small_regions(mask, settings.min_mask_region_area, holes=False)
        cleaned.append(torch.as_tensor(mask))
        untouched.append(float(not holes and not islands))
    masks = torch.stack(cleaned)
    boxes = mask_boxes(masks)
    threshold = max(settings.box_nms_thresh, settings.crop_nms_thresh)
    keep = nms(boxes.float(), torch.tensor(untouched), threshold)
    return replace(decoded, masks=pack(masks), boxes=boxes)[keep]


def mask_boxes(masks: Tensor) -> Tensor:
    """Return the boxes of bool masks [n, h, w]: int64 [n, 4], xyxy, inclusive; 0 if empty.

    Equal to the official ``batched_mask_to_box``.
    """
    if masks.device.type == "cpu":  # NumPy reduces bytes several times faster than torch
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


def _candidates(decoded: DecodedMasks, size: Size) -> Iterator[Candidate]:
    for index, mask in enumerate(unpack(decoded.masks, size)):
        x, y = decoded.points[index].tolist()
        x0, y0, x1, y1 = decoded.crop_boxes[index].tolist()
        yield Candidate(
            id=index,
            mask=mask,
            area=int(mask.sum()),
            box=_box(decoded.boxes[index]),
            predicted_iou=float(decoded.predicted_iou[index]),
            stability_score=float(decoded.stability[index]),
            point=(x, y),
            crop_box=(x0, y0, x1 - 1, y1 - 1),
        )


def _box(box: Tensor) -> Box:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1


def no_masks(size: Size) -> DecodedMasks:
    """Return 0 masks of a working image of ``size`` (height, width)."""
    return DecodedMasks(
        masks=pack(torch.zeros(0, *size, dtype=torch.bool)),
        boxes=torch.zeros(0, 4, dtype=torch.int64),
        predicted_iou=torch.zeros(0),
        stability=torch.zeros(0),
        points=torch.zeros(0, 2, dtype=torch.float64),
        crop_boxes=torch.zeros(0, 4, dtype=torch.int64),
    )


def pack(masks: Tensor) -> Tensor:
    """Pack bool masks [n, h, w] into bits, uint8 [n, ceil(h * w / 8)] on the CPU."""
    return torch.as_tensor(np.packbits(masks.flatten(1).cpu().numpy(), axis=1))


def unpack(bits: Tensor, size: Size) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the dense masks [h, w] of :func:`pack`."""
    height, width = size
    for row in bits.numpy():
        yield np.unpackbits(row, count=height * width).reshape(size).view(np.bool_)


_Window = tuple[slice, slice]


def without_small_regions(mask: Mask, min_area: int, *, holes: bool) -> tuple[Mask, bool]:
    """Fill the holes, or drop the islands, of fewer than ``min_area`` pixels.

    Equal to the official ``remove_small_regions``, but it searches only the part of the image
    around the mask and does not sort all pixels (``np.isin``).

    Returns:
        The mask, and True if it changed. If all islands are small, the largest stays.
    """
    window = _window(mask)
    n_labels, regions, sizes = _regions(mask[window] ^ holes)
    small = sizes < min_area
    if holes and any(small[label - 1] for label in _cut(regions, window, mask.shape) if label):
        # The background at the window's border continues outside and may be large.
        window = np.s_[:, :]
        n_labels, regions, sizes = _regions(~mask)
        small = sizes < min_area
    if not small.any():
        return mask, False
    inside = np.zeros(n_labels, dtype=np.bool_)
    if holes:
        inside[0], inside[1:] = True, small
    elif small.all():
        inside[1 + int(np.argmax(sizes))] = True
    else:
        inside[1:] = ~small
    clean = mask.copy()
    clean[window] = inside[regions]
    return clean, True


def _window(mask: Mask) -> _Window:
    """Return rows and columns of a mask, one or two pixels wider on each side.

    They start at even numbers: OpenCV numbers regions by blocks of two pixels, and of two islands
    of equal size the first must be the same as in the whole image.
    """
    sides = []
    for axis in (1, 0):
        filled = np.flatnonzero(mask.any(axis=axis))
        first, last = (filled[0], filled[-1]) if len(filled) else (0, 0)
        sides.append(slice(max(0, int(first) - 1) // 2 * 2, int(last) + 2))
    return sides[0], sides[1]


def _regions(mask: Mask) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the number of labels, the label of each pixel, and the area of each label > 0."""
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8
    )
    return n_labels, labels, stats[1:, cv2.CC_STAT_AREA]


def _cut(regions: npt.NDArray[Any], window: _Window, shape: tuple[int, ...]) -> set[int]:
    """Return the labels at those borders of a window that lie inside the image."""
    sides = []
    for axis, (side, length) in enumerate(zip(window, shape, strict=True)):
        if side.start > 0:
            sides.append(regions.take(0, axis))
        if side.stop < length:
            sides.append(regions.take(-1, axis))
    return set(np.unique(np.concatenate(sides)).tolist()) if sides else set()
