"""Step 5: prompt SAM with the boxes of the retrieved candidates.

The paper prompts with the box alone, which is what :class:`SamRefiner` does when called. Options of
``refine`` go beyond the paper: richer prompts (:mod:`salip_ray.cascade.prompts`) and cleaner masks
(:mod:`salip_ray.cascade.cleaning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from salip_ray.cascade import sam_ops
from salip_ray.cascade.cleaning import clean
from salip_ray.cascade.geometry import original_mask, to_original
from salip_ray.cascade.interfaces import RefinedMasks, Refiner
from salip_ray.cascade.prompts import Prompt, jittered
from salip_ray.config import Config, RefineConfig
from salip_ray.errors import ConfigError
from salip_ray.schema import Box, Candidate, Image, Mask, Size


class SamRefiner:
    """Segment what lies in a box, with SAM.

    Args:
        sam: a SAM in eval mode, on the device to use. Only :meth:`encode` needs its image encoder.
        config: its ``refine`` section and ``propose.stability_score_offset`` are used.
    """

    embedding = "sam"

    def __init__(self, sam: Sam, config: Config) -> None:
        self.sam = sam
        self.config = config.refine
        self.batch_size = config.refine.batch_size
        self.offset = config.propose.stability_score_offset

    def set_batch_size(self, size: int) -> None:
        """Decode ``size`` boxes at a time from now on."""
        self.batch_size = size

    def encode(self, working: Image) -> Tensor:
        """Return this SAM's embedding of a working image, float32 [1, C, h, w]."""
        return sam_ops.encode(self.sam, working)

    def __call__(
        self,
        embedding: Tensor,
        *,
        boxes: Sequence[Box],
        working_size: Size,
        original_size: Size,
    ) -> RefinedMasks:
        """Predict one mask per box.

        Logits are resized to the original size before SAM's threshold is applied, so outlines have
        the resolution of the original image.

        Args:
            embedding: float [1, C, h, w] of the working image.
            boxes: xyxy, inclusive, in pixels of the working image.
            working_size: height, width.
            original_size: height, width.
        """
        masks = np.zeros((len(boxes), *original_size), dtype=np.bool_)
        ious, stability = torch.zeros(len(boxes)), torch.zeros(len(boxes))
        embedding = embedding.to(self.sam.device, torch.float32)
        threshold = self.sam.mask_threshold
        for start in range(0, len(boxes), self.batch_size):
            batch = torch.tensor(boxes[start : start + self.batch_size], dtype=torch.float64)
            low_res, predicted = sam_ops.decode(
                self.sam, embedding, working_size, boxes=batch, multimask=False
            )
            # One by one: the full-size logits of a batch might not fit into memory.
            for index, logits in enumerate(low_res, start):
                full = sam_ops.upscale(self.sam, logits, working_size, original_size)
                masks[index] = (full[0] > threshold).cpu().numpy()
                stability[index] = sam_ops.stability_score(full, threshold, self.offset)[0]
            ious[start : start + self.batch_size] = predicted[:, 0]
        return RefinedMasks(masks, ious.numpy(), stability.numpy())

    def refine_prompt(
        self, embedding: Tensor, prompt: Prompt, working_size: Size, original_size: Size
    ) -> tuple[Mask, float, float]:
        """Predict the mask of one prompt, by the options of ``refine``.

        Returns:
            Mask [H, W] of ``original_size``, predicted IoU and stability score.
        """
        sam = self.sam
        embedding = embedding.to(sam.device, torch.float32)
        low_res, iou = decode(sam, embedding, working_size, prompt, self.config)
        logits = sam_ops.upscale(sam, low_res, working_size, original_size)
        stability = sam_ops.stability_score(logits, sam.mask_threshold, self.offset)
        return (logits[0] > sam.mask_threshold).cpu().numpy(), iou, float(stability[0])


def refine(
    refiner: Refiner,
    embedding: Any,
    prompts: Sequence[Prompt],
    config: RefineConfig,
    *,
    working_size: Size,
    original_size: Size,
) -> RefinedMasks:
    """Predict one mask per prompt and clean it, by the options of ``refine``.

    Args:
        refiner: the model.
        embedding: of the working image; for SAM float [1, C, h, w].
        prompts: at least one.
        config: the ``refine`` section.
        working_size: height, width.
        original_size: height, width.

    Raises:
        ConfigError: an option needs prompts beyond boxes, which only :class:`SamRefiner` takes.
    """
    sizes = {"working_size": working_size, "original_size": original_size}
    boxes = [prompt.box for prompt in prompts if prompt.box is not None]
    if config.plain and len(boxes) == len(prompts):
        refined = refine_boxes(refiner, embedding, boxes, config, **sizes)
    elif not isinstance(refiner, SamRefiner):
        raise ConfigError(
            "points, refine.centre_point, negative_points, box_jitter and mask_feedback need SAM "
            f"as the refiner, found {getattr(refiner, 'name', type(refiner).__name__)}: remove them"
        )
    else:
        at = working_size if config.resolution == "working" else original_size
        refined = _enlarged(
            _refine_prompts(
                refiner, embedding, prompts, working_size=working_size, original_size=at
            ),
            original_size,
        )
    return clean(refined, config)


def own_masks(
    candidates: Sequence[Candidate], config: RefineConfig, original_size: Size
) -> RefinedMasks:
    """Return the candidates' own masks, cleaned by the options of ``refine``.

    Args:
        candidates: at least one.
        config: the ``refine`` section.
        original_size: height, width.
    """
    masks = np.stack([original_mask(candidate, original_size) for candidate in candidates])
    scores = np.array([(c.predicted_iou, c.stability_score) for c in candidates], np.float32)
    return clean(RefinedMasks(masks, scores[:, 0], scores[:, 1]), config)


def refine_boxes(
    refiner: Refiner,
    embedding: Any,
    boxes: Sequence[Box],
    config: RefineConfig,
    *,
    working_size: Size,
    original_size: Size,
) -> RefinedMasks:
    """Predict one mask per box, [H, W] of ``original_size``, by ``refine.resolution``."""
    at = working_size if config.resolution == "working" else original_size
    refined = refiner(embedding, boxes=boxes, working_size=working_size, original_size=at)
    return _enlarged(refined, original_size)


def _enlarged(refined: RefinedMasks, size: Size) -> RefinedMasks:
    """Resize masks to ``size`` by nearest neighbour, unless they have it."""
    if refined.masks.shape[1:] == size:
        return refined
    return replace(refined, masks=np.stack([to_original(mask, size) for mask in refined.masks]))


def _refine_prompts(
    refiner: SamRefiner,
    embedding: Tensor,
    prompts: Sequence[Prompt],
    *,
    working_size: Size,
    original_size: Size,
) -> RefinedMasks:
    refined = [refiner.refine_prompt(embedding, p, working_size, original_size) for p in prompts]
    masks, ious, stabilities = zip(*refined, strict=True)
    return RefinedMasks(
        np.stack(masks), np.array(ious, np.float32), np.array(stabilities, np.float32)
    )


@torch.no_grad()
def decode(
    sam: Sam, embedding: Tensor, size: Size, prompt: Prompt, config: RefineConfig
) -> tuple[Tensor, float]:
    """Return low-resolution logits [1, 4h, 4w] and predicted IoU of a prompt, means over its boxes.

    The prompt has a box, points, or both.

    Args:
        sam: the model.
        embedding: [1, C, h, w], of the image the prompt lies on.
        size: height, width of that image.
        prompt: in pixels of that image.
        config: ``box_jitter``, ``jitter_share`` and ``mask_feedback`` are used.
    """
    transform = ResizeLongestSide(sam.image_encoder.img_size)
    boxes: Tensor | None = None
    if prompt.box is not None:
        boxes_on_image = jittered(prompt.box, size, config.box_jitter, config.jitter_share)
        boxes = torch.as_tensor(
            transform.apply_boxes(boxes_on_image, size), dtype=torch.float, device=sam.device
        )
    points: tuple[Tensor, Tensor] | None = None
    if prompt.inside or prompt.outside:
        xy = np.array(prompt.inside + prompt.outside, np.float64)
        coords = torch.as_tensor(
            transform.apply_coords(xy, size), dtype=torch.float, device=sam.device
        )
        signs = [1] * len(prompt.inside) + [0] * len(prompt.outside)
        labels = torch.tensor(signs, dtype=torch.int, device=sam.device)
        count = 1 if boxes is None else len(boxes)
        points = coords.expand(count, -1, -1), labels.expand(count, -1)
    # A single point may mean a part or the whole: as SAM's authors do, take the best of three.
    ambiguous = boxes is None and len(prompt.inside) + len(prompt.outside) == 1
    logits, iou = None, torch.zeros(1)
    for turn in range(1 + config.mask_feedback):
        sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=logits)
        logits, iou = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=ambiguous and turn == 0,
        )
        if logits.shape[1] > 1:
            best = int(iou[0].argmax())
            logits, iou = logits[:, best : best + 1], iou[:, best : best + 1]
    assert logits is not None
    return logits.mean(dim=0), float(iou.mean())
