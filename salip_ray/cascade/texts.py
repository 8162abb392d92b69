"""Step 4, first half: a class's sentences as one text feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.config import ClassSpec
from salip_ray.models.clip import ClipModel


def class_features(clip: ClipModel, classes: Sequence[ClassSpec]) -> Tensor:
    """One unit vector per class, float32 [n_classes, d] on CLIP's device.

    As SaLIP: the mean over the class's sentence features as the text tower gives them, normalised
    after the mean (open_clip's zero-shot classifier normalises each sentence before it as well).
    """
    means = [clip.encode_texts(spec.sentences, normalize=False).mean(dim=0) for spec in classes]
    return F.normalize(torch.stack(means), dim=-1)
