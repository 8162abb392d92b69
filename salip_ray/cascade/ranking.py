"""Step 4, by what candidates are ranked: CLIP's cosine, and what may take its place.

The paper takes the candidates nearest to a class's sentences. Here a candidate may also be asked
what else it could be (distractors, softmax), and SAM's own opinion of it may count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salip_ray.config import RetrieveConfig
from salip_ray.rows import Candidate

_LEAST = 1e-3  # of a quality whose logarithm is taken


@dataclass(frozen=True)
class Ranking:
    """How n candidates stand for each class of a task; float32 [n, n_classes] on the CPU.

    ``score`` is 100 * cosine; the higher ``merit``, the sooner a candidate is retrieved.
    ``probability`` is that of the class; ``presence`` [n_classes] the mean over the candidates of
    the probability of the class or a companion of it. Both are None where ``retrieve.scoring`` is
    not ``softmax``.
    """

    score: Tensor
    merit: Tensor
    probability: Tensor | None = None
    presence: Tensor | None = None


def rank(
    scores: Tensor,
    companions: Tensor,
    candidates: Sequence[Candidate],
    config: RetrieveConfig,
    logit_scale: float,
) -> Ranking:
    """Rank candidates for each class.

    Args:
        scores: 100 * cosine of candidates and texts, [n, n_classes + n_distractors], on the CPU.
        companions: bool [n_classes, n_classes + n_distractors]: which columns speak for each class
            being there, its own among them.
        candidates: the n candidates; ``sam_prior`` reads their qualities.
        config: ``scoring`` and ``sam_prior`` are used.
        logit_scale: what cosines are multiplied by before the softmax.
    """
    n_classes = len(companions)
    score = scores[:, :n_classes]
    probability = presence = None
    if config.scoring == "softmax":
        # The logarithm keeps candidates apart whose probabilities are all 1 in float32.
        log_p = (logit_scale / 100 * scores).log_softmax(dim=1)
        merit, probability = log_p[:, :n_classes], log_p[:, :n_classes].exp()
        # Of a whole image's candidates: what one crop leaves in doubt, all of them together don't.
        presence = (log_p.exp() @ companions.float().T).mean(dim=0)
    else:
        merit = score
    if config.sam_prior > 0:
        merit = merit + config.sam_prior * quality(candidates).log()[:, None]
    return Ranking(score, merit, probability, presence)


def quality(candidates: Sequence[Candidate]) -> Tensor:
    """SAM's opinion of each candidate, float32 [n]: predicted IoU times stability score, above 0.

    A stability score that is NaN (an empty mask) counts as none.
    """
    qualities = torch.tensor([c.predicted_iou * c.stability_score for c in candidates])
    return qualities.nan_to_num(0.0).clamp_min(_LEAST)
