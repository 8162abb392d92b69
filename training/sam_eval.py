"""IoU on target organs of held-out phantoms, prompted by box and by point, for the training log.

Box IoU alone hides weak image features, since a box defines most of the mask. One point in the
organ does not, so the best of its three masks is the better score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam

from training.bank import Bank, BitField
from training.sam_prompts import OTHER_ORGANS, TARGET_ORGANS

Ious = npt.NDArray[np.float64]  #: [P, masks], of P prompts


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
    asked = (*TARGET_ORGANS[bank.kind], *OTHER_ORGANS[bank.kind])
    names, organs, boxes, points = [], [], [], []
    for s, name in enumerate(bank.names):
        organ = (labels >> s & 1).astype(bool)
        if name not in asked or organ.sum() < 0.005 * organ.size:
            continue
        ys, xs = np.nonzero(organ)
        chosen = rng.integers(len(ys))
        names.append(name)
        organs.append(organ)
        boxes.append((xs.min(), ys.min(), xs.max(), ys.max()))
        points.append((xs[chosen], ys[chosen]))
    if not names:
        return []
    wanted = np.stack(organs)[:, None]
    position = sam.prompt_encoder.get_dense_pe()

    def ious(points: Any, boxes: Any, *, multimask: bool) -> tuple[Ious, Ious]:
        """Return IoU and predicted IoU [P, masks] of P prompts."""
        sparse, dense = sam.prompt_encoder(points, boxes, None)
        low, predicted = sam.mask_decoder(embedding, position, sparse, dense, multimask)
        masks = sam.postprocess_masks(low, image.shape, image.shape).cpu().numpy() > 0
        union = np.maximum((masks | wanted).sum((2, 3)), 1)
        return (masks & wanted).sum((2, 3)) / union, predicted.cpu().numpy()

    in_pixels = partial(torch.tensor, dtype=torch.float32, device=sam.device)
    of_box, _ = ious(None, in_pixels(boxes), multimask=False)
    ones = torch.ones(len(names), 1, device=sam.device)
    of_point, predicted = ious((in_pixels(points)[:, None], ones), None, multimask=True)
    best = np.arange(len(names)), predicted.argmax(1)
    columns = of_box[:, 0], of_point.max(1), of_point[best]
    return [
        (name, (float(box), float(point), float(chosen)))
        for name, box, point, chosen in zip(names, *columns, strict=True)
    ]
