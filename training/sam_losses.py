"""SAM's training losses: batched decoding, mask losses by role, predicted IoU, auxiliary head."""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, Sam
from torch import Tensor, nn
from torch.nn import functional

from salip_ray.models.bundled.sam_net import EMBED_DIM, GRID
from training.sam_data import Batch
from training.sam_prompts import NOTHING

LOW_RES = 4 * GRID  #: side of the decoder's masks
_ROLE_WEIGHTS = (0.25, 0.5, 0.25)  # part, organ (twice), whole


class StructureHead(nn.Module):
    """Auxiliary head: segment every structure of every kind from the embedding.

    Prompts train the encoder through a thin decoder and a few pixels. This head trains it on all
    structures of the image at once. It is not part of the exported model.
    """

    def __init__(self, structures: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(EMBED_DIM, structures * 16, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map embeddings [B, 96, 16, 16] to logits [B, structures, 64, 64]."""
        return functional.pixel_shuffle(self.read(embedding), 4)


def decode(
    decoder: MaskDecoder, embedding: Tensor, position: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Run `MaskDecoder.predict_masks` with one embedding per prompt.

    The official method repeats one image's embedding for its prompts. Here, prompts of many images
    share a batch.

    Args:
        decoder: the official decoder.
        embedding: [P, C, 16, 16], of the image of each prompt.
        position: [1, C, 16, 16], `PromptEncoder.get_dense_pe()`.
        sparse: [P, T, C].
        dense: [P, C, 16, 16].

    Returns:
        logits [P, 4, 64, 64] and predicted IoU [P, 4].
    """
    prompts = sparse.shape[0]
    output_tokens = torch.cat((decoder.iou_token.weight, decoder.mask_tokens.weight))
    tokens = torch.cat((output_tokens.expand(prompts, -1, -1), sparse), dim=1)
    source = embedding + dense
    tokens, source = decoder.transformer(source, position.expand_as(source), tokens)
    iou_token, mask_tokens = tokens[:, 0], tokens[:, 1 : 1 + decoder.num_mask_tokens]
    upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(embedding.shape))
    weights = torch.stack(
        [mlp(mask_tokens[:, n]) for n, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    return torch.einsum("pnc,pchw->pnhw", weights, upscaled), decoder.iou_prediction_head(iou_token)


def sam_loss(
    sam: Sam, head: StructureHead, batch: Batch, *, with_mask: bool, with_point: bool
) -> dict[str, Tensor]:
    """Return all losses of one batch, by name; training minimises "total".

    Boxes are prompted twice: alone, then with SAM's own mask as feedback (`with_mask`), with a
    point in the largest error (`with_point`), or both.
    """
    embedding = sam.image_encoder(batch.images)
    position = sam.prompt_encoder.get_dense_pe()
    points = len(batch.points)

    sparse_points, no_mask = sam.prompt_encoder(
        (batch.points[:, None], torch.ones(points, 1, device=batch.points.device)), None, None
    )
    sparse_boxes, _ = sam.prompt_encoder(None, batch.boxes, None)
    image_of = torch.cat((batch.point_image, batch.box_image))
    logits, iou = decode(
        sam.mask_decoder,
        embedding[image_of],
        position,
        torch.cat((sparse_points, sparse_boxes)),
        no_mask[:1],
    )

    something = batch.point_targets[:, 0] != NOTHING
    point_logits = logits[:points][something]
    wanted = batch.planes[batch.point_image[something, None], batch.point_targets[something]]
    by_role = _mask_loss(point_logits[:, 1:], wanted)  # [P', 3]
    point_loss = (by_role * by_role.new_tensor(_ROLE_WEIGHTS)).sum(1).mean()
    # The cascade does not use the single mask of a point, so it has a small weight.
    point_loss = point_loss + 0.25 * _mask_loss(point_logits[:, 0], wanted[:, 1]).mean()
    truth = torch.zeros_like(iou[:points])
    truth[something] = torch.cat(
        (
            _iou(point_logits[:, :1], wanted[:, 1:2]),
            _iou(point_logits[:, 1:], wanted),
        ),
        dim=1,
    )
    point_iou_loss = functional.mse_loss(iou[:points], truth)

    box_wanted = batch.planes[batch.box_image, batch.box_targets]
    box_logits = logits[points:, 0]
    box_loss = _mask_loss(box_logits, box_wanted).mean()
    box_iou_loss = functional.mse_loss(iou[points:, 0], _iou(box_logits, box_wanted))

    again_sparse, again_dense = _second_prompt(
        sam, batch, box_logits.detach(), box_wanted, with_mask=with_mask, with_point=with_point
    )
    again, again_iou = decode(
        sam.mask_decoder, embedding[batch.box_image], position, again_sparse, again_dense
    )
    again_loss = _mask_loss(again[:, 0], box_wanted).mean()
    again_iou_loss = functional.mse_loss(again_iou[:, 0], _iou(again[:, 0], box_wanted))

    auxiliary = _auxiliary_loss(head(embedding), batch)
    total = (
        point_loss
        + 0.6 * box_loss
        + 0.4 * again_loss
        + point_iou_loss
        + 0.5 * (box_iou_loss + again_iou_loss)
        + 0.5 * auxiliary
    )
    return {
        "total": total,
        "point": point_loss,
        "box": box_loss,
        "again": again_loss,
        "iou": point_iou_loss,
        "auxiliary": auxiliary,
    }


def _second_prompt(
    sam: Sam, batch: Batch, logits: Tensor, wanted: Tensor, *, with_mask: bool, with_point: bool
) -> tuple[Tensor, Tensor]:
    """Return the sparse and dense prompts of the second round: box, mask feedback, point."""
    points = None
    if with_point:
        wrong = (logits > 0) != (wanted > 0.5)
        # The most wrong pixel after a blur lies inside the largest error, not on a thin rim.
        error = functional.avg_pool2d(wrong.float()[:, None], 5, stride=1, padding=2)[:, 0].flatten(
            1
        )
        worst = error.argmax(1)
        label = wanted.flatten(1).gather(1, worst[:, None]) > 0.5
        pixel = sam.image_encoder.img_size / LOW_RES
        centre = torch.stack((worst % LOW_RES, worst // LOW_RES), dim=-1) * pixel + pixel / 2 - 0.5
        points = (centre[:, None], label.float())
    masks = logits[:, None] if with_mask else None
    sparse, dense = sam.prompt_encoder(points, batch.boxes, masks)
    return sparse, dense


def _mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return 3 * binary cross-entropy + dice: [..., H, W] -> [...]. Targets are coverage 0..1."""
    cross = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(
        (-2, -1)
    )
    probability = logits.sigmoid()
    overlap = (probability * target).sum((-2, -1))
    dice = 1.0 - (2.0 * overlap + 1.0) / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1.0)
    return 3.0 * cross + dice


@torch.no_grad()
def _iou(logits: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of thresholded masks: [..., H, W] -> [...]."""
    answer, truth = logits > 0, target > 0.5
    union = (answer | truth).sum((-2, -1)).clamp(min=1)
    return (answer & truth).sum((-2, -1)) / union


def _auxiliary_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return mean mask loss over the structures that each image's kind has."""
    return _mask_loss(logits[batch.owner_image, batch.owner_class], batch.owner_planes).mean()
