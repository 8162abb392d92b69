"""Steps 1 and 2: propose candidates with SAM, and filter them by area.

Reproduces ``segment_anything.SamAutomaticMaskGenerator`` (1.0): the same candidates in the same
order, with three deliberate differences. The embedding of the full view is returned for the
refiner. An image without any candidate is an ordinary result. Non-maximum suppression is stable:
of equal scores the lower index wins, however many boxes there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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

from salip_ray.cascade import sam_ops
from salip_ray.cascade.candidates import (
    DecodedMasks,
    filter_view,
    mask_boxes,
    merge_views,
    no_masks,
    pack,
    within_limits,
)
from salip_ray.cascade.interfaces import Proposals
from salip_ray.config import Config
from salip_ray.errors import ConfigError
from salip_ray.models.sam.decoder import Decoded
from salip_ray.schema import Image, Size

_Box = tuple[int, int, int, int]  # xyxy, end exclusive
_VIEWS_PER_BATCH = 5  # the full view and the four crops of one layer
_CACHE_BYTES = 4 * 1024**2  # of logits


class SamProposer:
    """Run SAM's automatic mask generation on working images.

    Args:
        sam: a SAM in eval mode, on the device to use.
        config: its ``propose`` section and its area limits are used.

    Raises:
        ConfigError: the grid of a crop layer would have no point.
    """

    embedding = "sam"

    def __init__(self, sam: Sam, config: Config) -> None:
        self.sam = sam
        self.settings = settings = config.propose
        self.config = config
        deepest = settings.crop_n_points_downscale_factor**settings.crop_n_layers
        if settings.points_per_side < deepest:
            raise ConfigError(
                f"propose.points_per_side is {settings.points_per_side}, which leaves no point in "
                f"crop layer {settings.crop_n_layers} (divided by {deepest} there)"
            )
        self.point_grids = build_all_layer_point_grids(
            settings.points_per_side,
            settings.crop_n_layers,
            settings.crop_n_points_downscale_factor,
        )

    def __call__(self, working: Image) -> Proposals:
        """Propose candidates on a working image, uint8 RGB [H, W, 3]."""
        settings, size = self.settings, (working.shape[0], working.shape[1])
        embeddings, views = self._decode_lazily(working, {})
        # View by view: the masks of all points of all views might not fit into memory.
        filtered = [filter_view(masks, settings) for masks in views]
        candidates = merge_views(filtered, settings, size)
        return Proposals(
            candidates=within_limits(candidates, self.config, size),
            n_proposed=len(candidates),
            embedding=embeddings[0],
        )

    def set_batch_size(self, size: int) -> None:
        """Decode ``size`` points at a time from now on."""
        self.settings = self.settings.model_copy(update={"points_per_batch": size})

    def decode_views(
        self, working: Image, encoded: dict[_Box, Any] | None = None
    ) -> tuple[tuple[DecodedMasks, ...], Any]:
        """Return the decoded masks of each view, and the embedding of the full view.

        :func:`~salip_ray.cascade.candidates.make_candidates` turns them into candidates, with the
        thresholds of this proposer or stricter ones.

        Args:
            working: uint8 RGB [H, W, 3].
            encoded: embeddings of views by their box, shared by proposers of one SAM; missing ones
                are added.
        """
        embeddings, views = self._decode_lazily(working, {} if encoded is None else encoded)
        return tuple(views), embeddings[0]

    def _decode_lazily(
        self, working: Image, encoded: dict[_Box, Any]
    ) -> tuple[list[Any], Iterator[DecodedMasks]]:
        """Return the embeddings of all views, and an iterator that decodes one view at a time."""
        size = working.shape[0], working.shape[1]
        views = self._views(size)
        new = [box for box, _ in views if box not in encoded]
        encoded.update(zip(new, self._encode(working, new), strict=True))
        embeddings = [encoded[box] for box, _ in views]
        decoded = (
            self._decode(embedding, box, self.point_grids[layer], size)
            for (box, layer), embedding in zip(views, embeddings, strict=True)
        )
        return embeddings, decoded

    def _views(self, size: Size) -> list[tuple[_Box, int]]:
        """Return box (xyxy, end exclusive) and crop layer of each view, the full image first."""
        boxes, layers = generate_crop_boxes(
            size, self.settings.crop_n_layers, self.settings.crop_overlap_ratio
        )
        # Crop layers that are too deep for the size of the image give empty boxes.
        return [
            ((x0, y0, x1, y1), layer)
            for (x0, y0, x1, y1), layer in zip(boxes, layers, strict=True)
            if x1 > x0 and y1 > y0
        ]

    def _encode(self, working: Image, boxes: Sequence[_Box]) -> list[Any]:
        """Return the embedding of each view."""
        crops = [working[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]
        embeddings: list[Any] = []
        for start in range(0, len(crops), _VIEWS_PER_BATCH):
            embeddings += self.encode_views(crops[start : start + _VIEWS_PER_BATCH])
        return embeddings

    def _decode(
        self, embedding: Any, crop_box: _Box, grid: npt.NDArray[np.float64], size: Size
    ) -> DecodedMasks:
        """Decode the masks of one view from a grid of points [n, 2], 0 to 1 across the view."""
        x0, y0, x1, y1 = crop_box
        points = torch.as_tensor(grid * np.array([x1 - x0, y1 - y0]))
        return DecodedMasks.concatenate(
            [
                self._decode_batch(embedding, batch, crop_box, size)
                for batch in torch.split(points, self.settings.points_per_batch)
            ]
        )

    # The operations of the model, which another SAM overrides.

    @property
    def threshold(self) -> float:
        """The logit above which a pixel belongs to a mask."""
        return float(self.sam.mask_threshold)

    def encode_views(self, views: Sequence[Image]) -> Sequence[Any]:
        """Return the embedding of each view, uint8 RGB [h, w, 3], in one batch."""
        return list(sam_ops.encode_views(self.sam, views).split(1))

    def decode_points(self, embedding: Any, size: Size, points: Tensor) -> Decoded:
        """Decode three masks for each of n points [n, 2] of a view, without those of low IoU."""
        return sam_ops.decode_above(
            self.sam, embedding, size, points=points, min_iou=self.settings.pred_iou_thresh
        )

    def upscale(self, logits: Tensor, size: Size) -> Tensor:
        """Resize logits [n, h, w] of a view to its size."""
        return sam_ops.upscale(self.sam, logits, size, size)

    def _decode_batch(
        self, embedding: Any, points: Tensor, crop_box: _Box, size: Size
    ) -> DecodedMasks:
        """Decode three masks for each of a batch of points [n, 2] of a view, and filter them."""
        x0, y0, x1, y1 = crop_box
        view_size = y1 - y0, x1 - x0
        logits, predicted_iou, prompt = self.decode_points(embedding, view_size, points)
        if not len(logits):
            return no_masks(size)
        chunk = len(logits)
        if logits.device.type == "cpu":  # chunks that stay in the cache from step to step
            chunk = max(1, _CACHE_BYTES // (4 * view_size[0] * view_size[1]))
        chunks = (x.split(chunk) for x in (logits, predicted_iou, points[prompt.cpu()]))
        return DecodedMasks.concatenate(
            [
                self._filter(chunk_logits, ious, prompts, crop_box, size)
                for chunk_logits, ious, prompts in zip(*chunks, strict=True)
            ]
        )

    def _filter(
        self, logits: Tensor, predicted_iou: Tensor, points: Tensor, crop_box: _Box, size: Size
    ) -> DecodedMasks:
        """Upscale logits [n, 4h, 4w]; drop masks that are unstable or cut off by their view."""
        settings, threshold = self.settings, self.threshold
        x0, y0, x1, y1 = crop_box
        height, width = size
        view_size = y1 - y0, x1 - x0
        logits = self.upscale(logits, view_size)
        stability = sam_ops.stability_score(logits, threshold, settings.stability_score_offset)
        masks = sam_ops.above(logits, threshold)
        boxes = mask_boxes(masks)
        keep = ~is_box_near_crop_edge(boxes, crop_box, [0, 0, width, height])
        if settings.stability_score_thresh > 0:
            keep &= stability >= settings.stability_score_thresh
        masks = uncrop_masks(masks[keep], crop_box, height, width)
        boxes = uncrop_boxes_xyxy(boxes[keep], crop_box)
        return DecodedMasks(
            masks=pack(masks),
            boxes=boxes.cpu(),
            predicted_iou=predicted_iou[keep].cpu(),
            stability=stability[keep].cpu(),
            points=uncrop_points(points[keep.cpu()], crop_box),
            crop_boxes=torch.tensor(crop_box).expand(len(boxes), 4),
        )
