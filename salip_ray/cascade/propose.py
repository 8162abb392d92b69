"""Step 1 and 2, propose and filter: the parts SAM sees, as candidates with ids.

Reproduces ``segment_anything.SamAutomaticMaskGenerator`` (1.0): the same candidates in the same
order, with three differences on purpose. The embedding of the full view is kept for the refiner.
No candidate at all is an ordinary result. Non-maximum suppression is stable: of equal scores the
lower index wins, however many boxes there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import (
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
    uncrop_boxes_xyxy,
    uncrop_masks,
    uncrop_points,
)
from torch import Tensor
from torchvision.ops import box_area, nms

from salip_ray.cascade import prompting
from salip_ray.cascade.prompting import Size
from salip_ray.config import Config
from salip_ray.errors import ConfigError
from salip_ray.rows import Box, Candidate, Image, Mask

_VIEWS_TOGETHER = 5  # the full view and the four crops of one layer


@dataclass(frozen=True)
class Proposals:
    """What SAM proposed on one working image.

    ``candidates`` passed the area filter and keep the ids they had before it; ``n_proposed`` counts
    those before. ``embedding`` is the full view's, float32 [1, C, h, w] on SAM's device.
    """

    candidates: tuple[Candidate, ...]
    n_proposed: int
    embedding: Tensor


@dataclass(frozen=True)
class _Parts:
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

    def __getitem__(self, keep: Tensor) -> _Parts:
        return _Parts(*(getattr(self, field.name)[keep] for field in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[_Parts]) -> _Parts:
        return _Parts(
            *(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(_Parts))
        )


class Proposer:
    """Runs SAM's automatic mask generation on working images.

    Args:
        sam: a SAM in eval mode, on the device to use.
        config: its ``propose`` section and the area limits of its ``task`` are used.

    Raises:
        ConfigError: a crop layer would have no point.
    """

    def __init__(self, sam: Sam, config: Config) -> None:
        self.sam = sam
        self.knobs = knobs = config.propose
        self.task = config.task
        deepest = knobs.crop_n_points_downscale_factor**knobs.crop_n_layers
        if knobs.points_per_side < deepest:
            raise ConfigError(
                f"propose.points_per_side is {knobs.points_per_side}, which leaves no point in "
                f"crop layer {knobs.crop_n_layers} (divided by {deepest} there)"
            )
        self.point_grids = build_all_layer_point_grids(
            knobs.points_per_side, knobs.crop_n_layers, knobs.crop_n_points_downscale_factor
        )

    def __call__(self, working: Image) -> Proposals:
        """Propose candidates on a working image (uint8 RGB, [H, W, 3])."""
        height, width = working.shape[:2]
        views = self._views((height, width))
        embeddings = self._encode(working, [box for box, _ in views])
        parts = self._generate(views, embeddings, (height, width))
        low, high = self.task.area_limits(height, width)
        candidates = list(_candidates(parts, (height, width)))
        return Proposals(
            candidates=tuple(c for c in candidates if low < c.area < high),
            n_proposed=len(candidates),
            embedding=embeddings[0],
        )

    def _views(self, size: Size) -> list[tuple[list[int], int]]:
        """Box (xyxy, end exclusive) and crop layer of each view; the full image is the first."""
        boxes, layers = generate_crop_boxes(
            size, self.knobs.crop_n_layers, self.knobs.crop_overlap_ratio
        )
        # A crop layer deeper than the image has pixels gives empty boxes.
        return [(b, n) for b, n in zip(boxes, layers, strict=True) if b[2] > b[0] and b[3] > b[1]]

    def _encode(self, working: Image, boxes: Sequence[list[int]]) -> list[Tensor]:
        """The embedding [1, C, h, w] of each view, some views at a time."""
        crops = [working[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]
        embeddings: list[Tensor] = []
        for start in range(0, len(crops), _VIEWS_TOGETHER):
            batch = prompting.encode_views(self.sam, crops[start : start + _VIEWS_TOGETHER])
            embeddings += batch.split(1)
        return embeddings

    def _generate(
        self, views: Sequence[tuple[list[int], int]], embeddings: Sequence[Tensor], size: Size
    ) -> _Parts:
        parts = _Parts.concatenate(
            [
                self._view(embedding, crop_box, self.point_grids[layer], size)
                for (crop_box, layer), embedding in zip(views, embeddings, strict=True)
            ]
        )
        if self.knobs.crop_n_layers > 0:
            # Of duplicates between views, the one seen in the smaller crop is kept.
            scores = 1 / box_area(parts.crop_boxes)
            parts = parts[nms(parts.boxes.float(), scores, self.knobs.crop_nms_thresh)]
        if self.knobs.min_mask_region_area > 0:
            parts = self._clean(parts, size)
        return parts

    def _view(
        self, embedding: Tensor, crop_box: list[int], grid: npt.NDArray[np.float64], size: Size
    ) -> _Parts:
        """The masks of one view, the full image or a crop, without duplicates."""
        x0, y0, x1, y1 = crop_box
        points = torch.as_tensor(grid * np.array([x1 - x0, y1 - y0]))
        parts = _Parts.concatenate(
            [
                self._batch(embedding, batch, crop_box, size)
                for batch in torch.split(points, self.knobs.points_per_batch)
            ]
        )
        return parts[nms(parts.boxes.float(), parts.predicted_iou, self.knobs.box_nms_thresh)]

    def _batch(self, embedding: Tensor, points: Tensor, crop_box: list[int], size: Size) -> _Parts:
        """Three masks for each of a batch of points [n, 2], filtered by quality and place."""
        knobs, threshold = self.knobs, self.sam.mask_threshold
        x0, y0, x1, y1 = crop_box
        view_size = y1 - y0, x1 - x0
        logits, predicted_iou, prompt = prompting.decode_above(
            self.sam, embedding, view_size, points=points, min_iou=knobs.pred_iou_thresh
        )
        points = points[prompt.cpu()]
        if not len(logits):
            return _no_parts(size)
        logits = prompting.upscale(self.sam, logits, view_size, view_size)
        stability = prompting.stability_score(logits, threshold, knobs.stability_score_offset)
        if knobs.stability_score_thresh > 0:
            keep = stability >= knobs.stability_score_thresh
            logits, predicted_iou, points = logits[keep], predicted_iou[keep], points[keep.cpu()]
            stability = stability[keep]
        masks = logits > threshold
        boxes = mask_boxes(masks)
        height, width = size
        keep = ~is_box_near_crop_edge(boxes, crop_box, [0, 0, width, height])
        masks = uncrop_masks(masks[keep], crop_box, height, width)
        boxes = uncrop_boxes_xyxy(boxes[keep], crop_box)
        return _Parts(
            masks=_pack(masks),
            boxes=boxes.cpu(),
            predicted_iou=predicted_iou[keep].cpu(),
            stability=stability[keep].cpu(),
            points=uncrop_points(points[keep.cpu()], crop_box),
            crop_boxes=torch.tensor(crop_box).expand(len(boxes), 4),
        )

    def _clean(self, parts: _Parts, size: Size) -> _Parts:
        """Remove small holes and islands, then the duplicates that this makes.

        A mask that needed no cleaning wins over one that did.
        """
        if not len(parts):
            return parts
        cleaned, untouched = [], []
        for mask in _unpack(parts.masks, size):
            mask, holes = without_small_regions(mask, self.knobs.min_mask_region_area, holes=True)
            mask, islands = without_small_regions(
                mask, self.knobs.min_mask_region_area, holes=False
            )
            cleaned.append(torch.as_tensor(mask))
            untouched.append(float(not holes and not islands))
        masks = torch.stack(cleaned)
        boxes = mask_boxes(masks)
        threshold = max(self.knobs.box_nms_thresh, self.knobs.crop_nms_thresh)
        keep = nms(boxes.float(), torch.tensor(untouched), threshold)
        clean = _Parts(
            masks=_pack(masks),
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


def without_small_regions(mask: Mask, min_area: int, *, holes: bool) -> tuple[Mask, bool]:
    """Fill the holes, or drop the islands, of fewer than ``min_area`` pixels.

    The official ``remove_small_regions``, without its sort of all pixels (``np.isin``).

    Returns:
        The mask, and whether it changed. Of islands that are all small the largest stays.
    """
    n_labels, regions, stats, _ = cv2.connectedComponentsWithStats(
        (mask ^ holes).view(np.uint8), connectivity=8
    )
    sizes = stats[1:, cv2.CC_STAT_AREA]  # row 0 is the rest
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
    return kept[regions], True


def _candidates(parts: _Parts, size: Size) -> Iterator[Candidate]:
    for index, mask in enumerate(_unpack(parts.masks, size)):
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


def _no_parts(size: Size) -> _Parts:
    return _Parts(
        masks=_pack(torch.zeros(0, *size, dtype=torch.bool)),
        boxes=torch.zeros(0, 4, dtype=torch.int64),
        predicted_iou=torch.zeros(0),
        stability=torch.zeros(0),
        points=torch.zeros(0, 2, dtype=torch.float64),
        crop_boxes=torch.zeros(0, 4, dtype=torch.int64),
    )


def _pack(masks: Tensor) -> Tensor:
    """Boolean [n, h, w] -> bits, uint8 [n, ceil(h * w / 8)] on the CPU."""
    return torch.as_tensor(np.packbits(masks.flatten(1).cpu().numpy(), axis=1))


def _unpack(bits: Tensor, size: Size) -> Iterator[npt.NDArray[np.bool_]]:
    """The dense [h, w] masks of :func:`_pack`, one after the other."""
    height, width = size
    for row in bits.numpy():
        yield np.unpackbits(row, count=height * width).reshape(size).view(np.bool_)
