"""Step 5, refine: SAM prompted with boxes, on the embedding that the proposals were made from.

Step 5 beyond the paper: prompts richer than a box, and tidier masks. All of it is optional.

Where no option of ``refine`` is set, this is the :class:`~salip_ray.cascade.refiner.SamRefiner` and
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from salip_ray.cascade import sam_ops
from salip_ray.cascade.interfaces import RefinedMasks, Refiner
from salip_ray.config import Config, RefineConfig
from salip_ray.errors import ConfigError
from salip_ray.schema import Box, Candidate, Image, Mask, Size


class SamRefiner:
    """Segments what lies in a box.

    Args:
        sam: a SAM in eval mode, on the device to use. Its image encoder is needed for
            :meth:`encode` alone.
        config: ``refine.batch_size`` and ``propose.stability_score_offset`` are used.
    """

    def __init__(self, sam: Sam, config: Config) -> None:
        self.sam = sam
        self.batch_size = config.refine.batch_size
        self.offset = config.propose.stability_score_offset

    def set_batch_size(self, size: int) -> None:
        """Decode ``size`` boxes at a time from now on."""
        self.batch_size = size

    def encode(self, working: Image) -> Tensor:
        """The working image's embedding by this SAM, where its weights are not the proposer's."""
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

        The logits are brought to the original size before they are cut at SAM's threshold, so the
        outline is as fine as the image, not as the working image.

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
            # One by one: full-size logits of a batch need not fit into memory.
            for index, logits in enumerate(low_res, start):
                full = sam_ops.upscale(self.sam, logits, working_size, original_size)
                masks[index] = (full[0] > threshold).cpu().numpy()
                stability[index] = sam_ops.stability_score(full, threshold, self.offset)[0]
            ious[start : start + self.batch_size] = predicted[:, 0]
        return RefinedMasks(masks, ious.numpy(), stability.numpy())


Point = tuple[float, float]  #: x, y

_SEED = 0  # of the jitter: the same for every prompt, so that a label depends on its image alone


@dataclass(frozen=True, slots=True)
class Prompt:
    """What SAM is told of one retrieved candidate, on the working image."""

    box: Box
    inside: tuple[Point, ...] = ()
    outside: tuple[Point, ...] = ()


def prompts_for(
    candidates: Sequence[Candidate], others: Sequence[Candidate], config: RefineConfig
) -> tuple[Prompt, ...]:
    """A prompt for each of a class's retrieved candidates.

    Args:
        candidates: those retrieved for the class; they are negative to each other, too.
        others: those retrieved for other classes.
        config: ``centre_point`` and ``negative_points`` are used.
    """
    prompts = []
    for own in candidates:
        inside = (innermost(own.mask),) if config.centre_point else ()
        rivals = [c for c in (*candidates, *others) if c.id != own.id]
        foreign = [rival.mask & ~own.mask for rival in rivals] if config.negative_points else []
        outside = tuple(innermost(mask) for mask in foreign if mask.any())
        prompts.append(Prompt(own.box, inside, outside))
    return tuple(prompts)


def refine(
    refiner: Refiner,
    embedding: Tensor,
    prompts: Sequence[Prompt],
    config: RefineConfig,
    *,
    working_size: Size,
    original_size: Size,
) -> RefinedMasks:
    """One mask per prompt, on the original pixels, as ``refine`` wants them made and tidied.

    Args:
        refiner: the box-prompted SAM.
        embedding: float [1, C, h, w] of the working image.
        prompts: at least one.
        config: the ``refine`` section.
        working_size: height, width.
        original_size: height, width.

    Raises:
        ConfigError: prompts are to be richer than boxes, and the refiner is not SAM's.
    """
    sizes = {"working_size": working_size, "original_size": original_size}
    if config.plain:
        refined = refiner(embedding, boxes=[prompt.box for prompt in prompts], **sizes)
    elif not isinstance(refiner, SamRefiner):
        raise ConfigError(
            "the options of refine that change a prompt need SAM as the refiner, found "
            f"{type(refiner).__name__}: leave them out"
        )
    else:
        refined = _enriched(refiner, embedding, prompts, config, **sizes)
    masks = refined.masks
    if config.fill_holes:
        masks = np.stack([filled(mask) for mask in masks])
    if config.min_part > 0:
        masks = np.stack([without_small_parts(mask, config.min_part) for mask in masks])
    return RefinedMasks(masks, refined.predicted_iou, refined.stability)


def _enriched(
    refiner: SamRefiner,
    embedding: Tensor,
    prompts: Sequence[Prompt],
    config: RefineConfig,
    *,
    working_size: Size,
    original_size: Size,
) -> RefinedMasks:
    sam = refiner.sam
    embedding = embedding.to(sam.device, torch.float32)
    masks, ious, stabilities = [], [], []
    for prompt in prompts:
        low_res, iou = decode(sam, embedding, working_size, prompt, config)
        logits = sam_ops.upscale(sam, low_res, working_size, original_size)
        masks.append((logits[0] > sam.mask_threshold).cpu().numpy())
        ious.append(iou)
        stabilities.append(
            float(sam_ops.stability_score(logits, sam.mask_threshold, refiner.offset)[0])
        )
    return RefinedMasks(
        np.stack(masks), np.array(ious, np.float32), np.array(stabilities, np.float32)
    )


@torch.no_grad()
def decode(
    sam: Sam, embedding: Tensor, size: Size, prompt: Prompt, config: RefineConfig
) -> tuple[Tensor, float]:
    """Low-resolution logits [1, 4h, 4w] and predicted IoU for one prompt: means over its boxes.

    Args:
        sam: the model.
        embedding: [1, C, h, w], of the image the prompt lies on.
        size: height, width of that image.
        prompt: the prompt.
        config: ``box_jitter``, ``jitter_share`` and ``mask_feedback`` are used.
    """
    transform = ResizeLongestSide(sam.image_encoder.img_size)
    placed = jittered(prompt.box, size, config.box_jitter, config.jitter_share)
    boxes = torch.as_tensor(
        transform.apply_boxes(placed, size), dtype=torch.float, device=sam.device
    )
    points: tuple[Tensor, Tensor] | None = None
    if prompt.inside or prompt.outside:
        places = np.array(prompt.inside + prompt.outside, np.float64)
        coords = torch.as_tensor(
            transform.apply_coords(places, size), dtype=torch.float, device=sam.device
        )
        signs = [1] * len(prompt.inside) + [0] * len(prompt.outside)
        labels = torch.tensor(signs, dtype=torch.int, device=sam.device)
        points = coords.expand(len(boxes), -1, -1), labels.expand(len(boxes), -1)
    logits, iou = None, torch.zeros(1)
    for _ in range(1 + config.mask_feedback):
        sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=logits)
        logits, iou = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
    assert logits is not None
    return logits.mean(dim=0), float(iou.mean())


def jittered(box: Box, size: Size, count: int, share: float) -> npt.NDArray[np.float64]:
    """The box and ``count`` more like it, xyxy [1 + count, 4], within an image of ``size``.

    Each side is moved by up to ``share`` of the box's width or height, the same way for every box.
    """
    height, width = size
    x0, y0, x1, y1 = box
    extent = np.array([x1 - x0 + 1, y1 - y0 + 1, x1 - x0 + 1, y1 - y0 + 1])
    moves = np.random.default_rng(_SEED).uniform(-share, share, (count, 4)) * extent
    boxes = np.array(box) + np.vstack([np.zeros(4), moves])
    last = np.array([width - 1, height - 1, width - 1, height - 1])
    boxes[1:] = np.clip(boxes[1:], 0, last)
    return np.asarray(boxes, np.float64)


def innermost(mask: Mask) -> Point:
    """The pixel of a non-empty mask farthest from its outline and from the image's border."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(column), float(row)


def filled(mask: Mask) -> Mask:
    """The mask with everything that it surrounds."""
    outlines, _hierarchy = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    solid: npt.NDArray[np.uint8] = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(solid, outlines, -1, 1, cv2.FILLED)
    return solid.astype(np.bool_)


def without_small_parts(mask: Mask, share: float) -> Mask:
    """The mask without its (8-connected) parts smaller than ``share`` of the largest."""
    _count, parts, stats, _centres = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = 0  # the background
    kept = areas >= max(1.0, share * areas.max())
    return np.asarray(kept[parts])
