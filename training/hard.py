"""Phantoms that a trained model is bad at: a run from its weights draws them more often.

Most phantoms become easy soon. A quarter of the brains, near the base of the skull, stay hard much
longer. Equal probabilities would spend most steps on easy phantoms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from open_clip import CLIP
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.models.bundled.clip_net import bundled_preprocess
from training.bank import Bank
from training.clip_data import CropBank
from training.sam_eval import phantom_ious

Chances = npt.NDArray[np.float64]  #: [N], probability of each of N phantoms or groups

_EASY = 0.03  # added to every weight, so that easy ones are drawn, too


def hard_phantoms(sam: Sam, bank: Bank) -> Chances:
    """Weight each phantom by 1 - IoU of its organs, prompted by a box and by a point."""
    ious = [np.array([row[:2] for _, row in organs]) for organs in phantom_ious(sam, bank)]
    return _chances(np.array([1.0 - each.mean() if len(each) else 0.0 for each in ious]))


@torch.no_grad()
def hard_groups(clip: CLIP, bank: CropBank, texts: Tensor) -> Chances:
    """Weight each group by the grade that the candidate nearest to its text lacks.

    A group without a piece of the organ has no grades; it is drawn as often as the mean of the
    others.

    Args:
        clip: the model.
        bank: of N groups.
        texts: [kinds, d], text feature of the organ of each kind.
    """
    normalise = bundled_preprocess().transforms[-1]  # type: ignore[attr-defined]
    was_training = clip.training
    clip.eval()
    lacks = np.zeros(len(bank))
    ungraded = []
    for index in range(len(bank)):
        shown = bank.labels[index, :, 0] >= 0
        if not shown.any():  # SAM proposed nothing on this phantom
            continue
        grades = bank.grades[index][shown]
        if grades.max() == 0:
            ungraded.append(index)
            continue
        pixels = torch.from_numpy(bank.crops[index][shown]).permute(0, 3, 1, 2) / 255
        images = F.normalize(clip.encode_image(normalise(pixels.to(texts.device))), dim=-1)
        chosen = int((images @ texts[bank.kinds[index]]).argmax())
        lacks[index] = grades.max() - grades[chosen]
    lacks[ungraded] = lacks.sum() / max(1, len(lacks) - len(ungraded))
    clip.train(was_training)
    return _chances(lacks)


def _chances(lacks: npt.NDArray[np.float64]) -> Chances:
    weights = _EASY + lacks
    return np.asarray(weights / weights.sum())
