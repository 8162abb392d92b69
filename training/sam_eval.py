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
from training.sam_prompts import OTHER_ORGANS, TARGET_ORGANS


def prompt_ious(sam: Sam, banks: Iterable[Bank], *, seed: int = 0) -> dict[str, float]:
    """Return the mean IoU of each bank's target organs: {"KIND/box": ..., "KIND/point": ...}.

    The other organs of tasks with several classes have "ORGAN/box" and so on, if a bank shows them.
    "box" is the single mask for the organ's tight box; "point" the best of the three masks for one
    random point in the organ, "chosen" the one of highest predicted IoU.
    """
    scores: dict[str, float] = {}
    for bank in banks:
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for organs in phantom_ious(sam, bank, seed=seed):
            for name, row in organs:
                title = bank.kind if name in TARGET_ORGANS[bank.kind] else name
                rows.setdefault(title, []).append(row)
        for title, ious in rows.items():
            for prompt, value in zip(
                ("box", "point", "chosen"), np.mean(ious, axis=0), strict=True
            ):
                scores[f"{title}/{prompt}"] = round(float(value), 4)
    return scores


@torch.no_grad()
def phantom_ious(
    sam: Sam, bank: Bank, *, seed: int = 0
) -> Iterator[list[tuple[str, tuple[float, float, float]]]]:
    """Yield for each phantom the name and (box, point, chosen) IoU of each of its organs.

    Organs are those of `TARGET_ORGANS` and `OTHER_ORGANS`.
    """
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
) -> list[tuple[str, tuple[float, float, float]]]:
    """Return name and (box, best point, chosen point) IoU of each organ in one phantom."""
    rgb = torch.from_numpy(image.astype(np.float32)).to(sam.device).expand(3, -1, -1)
    embedding = sam.image_encoder(sam.preprocess(rgb[None]))
    position = sam.prompt_encoder.get_dense_pe()
    rows = []
    asked = (*TARGET_ORGANS[bank.kind], *OTHER_ORGANS[bank.kind])
    for s, name in enumerate(bank.names):
        organ = (labels >> s & 1).astype(bool)
        if name not in asked or organ.sum() < 0.005 * organ.size:
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
        row = float(ious[0][0]), float(ious[1].max()), float(ious[1][predicted[1]])
        rows.append((name, row))
    return rows
