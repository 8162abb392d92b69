"""What a trained model is still bad at, for a run that goes on from its weights to see more of.

Most phantoms are soon easy: brains are found well long before those at the base of the skull, one
in four, are found at all. Drawn alike, the easy ones take most of the steps.
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

Chances = npt.NDArray[np.float64]  #: [N], how often each of N things is drawn; their sum is 1

_EASY = 0.03  # what is done without fault is drawn as often as what lacks so much


def hard_phantoms(sam: Sam, bank: Bank) -> Chances:
    """By what the IoU of the target organs lacks, prompted by a box and by a point."""
    found = [
        np.array([(box, point) for box, point, _ in organs]) for organs in phantom_ious(sam, bank)
    ]
    return _chances(np.array([1.0 - ious.mean() if len(ious) else 0.0 for ious in found]))


@torch.no_grad()
def hard_groups(clip: CLIP, bank: CropBank, texts: Tensor) -> Chances:
    """By how much worse a prompt the candidate nearest to its text is than the group's best.

    Args:
        clip: the model.
        bank: of N groups.
        texts: [kinds, d], what the organ of each kind is sought by.
    """
    normalise = bundled_preprocess().transforms[-1]  # type: ignore[attr-defined]
    was_training = clip.training
    clip.eval()
    lacks = np.zeros(len(bank))
    for index in range(len(bank)):
        shown = bank.labels[index, :, 0] >= 0
        pixels = torch.from_numpy(bank.crops[index][shown]).permute(0, 3, 1, 2) / 255
        images = F.normalize(clip.encode_image(normalise(pixels.to(texts.device))), dim=-1)
        chosen = int((images @ texts[bank.kinds[index]]).argmax())
        grades = bank.grades[index][shown]
        lacks[index] = grades.max() - grades[chosen]
    clip.train(was_training)
    return _chances(lacks)


def _chances(lacks: npt.NDArray[np.float64]) -> Chances:
    weights = _EASY + lacks
    return np.asarray(weights / weights.sum())
