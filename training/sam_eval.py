"""IoU on target organs of held-out phantoms, prompted by box and by point, for the training log.

Box IoU alone hides weak image features, since a box defines most of the mask. One point in the
organ does not, so the best of its three masks is the better score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from segment_anything.modeling import Sam

from training.bank import Bank, BitField
from training.sam_prompts import TARGET_ORGANS


def prompt_ious(sam: Sam, banks: Iterable[Bank], *, seed: int = 0) -> dict[str, float]:
    """Return the mean IoU of each bank's target organs: {"KIND/box": ..., "KIND/point": ...}.

    "box" is the single mask for the organ's tight box; "point" the best of the three masks for one
    random point in the organ, "chosen" the one of highest predicted IoU.
    """
    scores: dict[str, float] = {}
    for bank in banks:
        rows = [row for organs in phantom_ious(sam, bank, seed=seed) for row in organs]
        for name, value in zip(("box", "point", "chosen"), np.mean(rows, axis=0), strict=True):
            scores[f"{bank.kind}/{name}"] = round(float(value), 4)
    return scores


@torch.no_grad()
def phantom_ious(
    sam: Sam, bank: Bank, *, seed: int = 0
) -> Iterator[list[tuple[float, float, float]]]:
    """Yield for each phantom the (box, point, chosen) IoU of each of its target organs."""
    rng = np.random.default_rng(seed)
    was_training = sam.training
    sam.eval()
    for index in range(len(bank)):
        image, labels = bank.phantom(index)
        yield _organ_ious(sam, image, labels, bank, rng)
    sam.train(was_training)


def _organ_ious(
    sam: Sam,
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    labels: BitField,
    bank: Bank,
    rng: np.random.Generator,
) -> list[tuple[float, float, float]]:
    """Return the (box, best point, chosen point) IoU of each target organ in one phantom."""
    rgb = torch.from_numpy(image.astype(np.float32)).to(sam.device).expand(3, -1, -1)
    embedding = sam.image_encoder(sam.preprocess(rgb[None]))
    position = sam.prompt_encoder.get_dense_pe()
    rows = []
    for s, name in enumerate(bank.names):
        organ = (labels >> s & 1).astype(bool)
        if name not in TARGET_ORGANS[bank.kind] or organ.sum() < 0.005 * organ.size:
            continue
        ys, xs = np.nonzero(organ)
        chosen = rng.integers(len(ys))
        box = torch.tensor(
            [[xs.min(), ys.min(), xs.max(), ys.max()]], dtype=torch.float32, device=sam.device
        )
        point = torch.tensor([[[xs[chosen], ys[chosen]]]], dtype=torch.float32, device=sam.device)
        ones = torch.ones(1, 1, device=sam.device)
        ious, predicted = [], []
        for points, boxes, multimask in ((None, box, False), ((point, ones), None, True)):
            sparse, dense = sam.prompt_encoder(points, boxes, None)
            low, quality = sam.mask_decoder(embedding, position, sparse, dense, multimask)
            masks = sam.postprocess_masks(low, image.shape, image.shape)[0].cpu().numpy() > 0
            union = np.maximum((masks | organ).sum((1, 2)), 1)
            ious.append((masks & organ).sum((1, 2)) / union)
            predicted.append(int(quality[0].argmax()))
        rows.append((float(ious[0][0]), float(ious[1].max()), float(ious[1][predicted[1]])))
    return rows
