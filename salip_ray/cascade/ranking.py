"""Step 4, second half: rank candidates for each class.

SaLIP takes the candidates whose image features are closest to a class's text feature. Two options
go beyond the paper: ``scoring: softmax`` lets the other classes and distractors compete for a
candidate, and ``sam_prior`` adds SAM's own scores of the candidate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.cascade.selecting import select_classes
from salip_ray.config import ClassSpec, Config, RetrieveConfig
from salip_ray.schema import Candidate, Selection

_MIN_QUALITY = 1e-3  # the logarithm of a quality is taken


class TextEncoder(Protocol):
    """The text half of CLIP, or text features computed earlier."""

    @property
    def logit_scale(self) -> float:
        """The factor that CLIP was trained to multiply cosines by before a softmax."""

    def encode_texts(self, sentences: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Return one feature per sentence, float32 [n, d], of unit length if ``normalize``."""


@dataclass(frozen=True)
class Ranking:
    """The figures of n candidates for each class of a task, float32 [n, n_classes] on the CPU.

    Attributes:
        score: 100 * cosine.
        merit: what candidates are ranked by; the highest is retrieved first.
        probability: of the class among all classes and distractors; None unless
            ``retrieve.scoring`` is ``softmax``.
        presence: [n_classes], the mean over the candidates of the probability of the class or one
            of its companions; None like ``probability``.
        evidence: of the class or one of its signs; None like ``probability``.
    """

    score: Tensor
    merit: Tensor
    probability: Tensor | None = None
    presence: Tensor | None = None
    evidence: Tensor | None = None


def rank(
    scores: Tensor,
    companions: Tensor,
    candidates: Sequence[Candidate],
    config: RetrieveConfig,
    logit_scale: float | None,
    signs: Tensor | None = None,
) -> Ranking:
    """Rank candidates for each class.

    Args:
        scores: 100 * cosine of candidates and texts, [n, n_classes + n_distractors], on the CPU.
        companions: bool [n_classes, n_classes + n_distractors]: the columns that count for the
            presence of each class, its own column included.
        candidates: the n candidates; ``sam_prior`` reads their SAM scores.
        config: ``scoring`` and ``sam_prior`` are used.
        logit_scale: factor of the cosines before the softmax; None without a softmax.
        signs: like ``companions``, for the evidence; None for no evidence.
    """
    n_classes = len(companions)
    score = scores[:, :n_classes]
    if config.scoring != "softmax":
        return merit_ranking(score, candidates, config)
    assert logit_scale is not None, "a softmax has a scale"
    # Logarithms still differ if several probabilities are 1 in float32.
    log_p = (logit_scale / 100 * scores).log_softmax(dim=1)
    merit, probability = log_p[:, :n_classes], log_p[:, :n_classes].exp()
    # The mean over all candidates is more reliable than the probability of a single one.
    presence = (log_p.exp() @ companions.float().T).mean(dim=0)
    evidence = None if signs is None else log_p.exp() @ signs.float().T
    merit = _with_prior(merit, candidates, config)
    return Ranking(score, merit, probability, presence, evidence)


def merit_ranking(
    score: Tensor, candidates: Sequence[Candidate], config: RetrieveConfig
) -> Ranking:
    """Rank n candidates by their scores [n, n_classes], and by ``sam_prior``."""
    return Ranking(score, _with_prior(score, candidates, config))


def _with_prior(merit: Tensor, candidates: Sequence[Candidate], config: RetrieveConfig) -> Tensor:
    if config.sam_prior > 0:
        return merit + config.sam_prior * quality(candidates).log()[:, None]
    return merit


def quality(candidates: Sequence[Candidate]) -> Tensor:
    """Return predicted IoU times stability score of each candidate, float32 [n], above 0.

    A stability score that is NaN (an empty mask) counts as 0. A candidate that no model scored
    counts as 1: it is neither better nor worse than one that SAM is sure of.
    """
    qualities = torch.tensor(
        [
            1.0 if math.isnan(c.predicted_iou) else c.predicted_iou * c.stability_score
            for c in candidates
        ]
    )
    return qualities.nan_to_num(0.0).clamp_min(_MIN_QUALITY)


def class_features(texts: TextEncoder, classes: Sequence[ClassSpec]) -> Tensor:
    """Return one unit vector per class, float32 [n_classes, d] on the encoder's device.

    The published code takes the mean of the sentence features without normalising them, and
    normalises the mean. (open_clip's zero-shot classifier normalises each sentence as well.)
    """
    means = [texts.encode_texts(spec.sentences, normalize=False).mean(dim=0) for spec in classes]
    return F.normalize(torch.stack(means), dim=-1)


class Ranker:
    """Select candidates for every class of a task from their image features.

    The sentences are encoded once, in the constructor.

    Args:
        texts: CLIP's text tower, or its features of the task's sentences.
        config: its ``retrieve`` section is used, and the classes, distractors, companions and top-k
            of its ``task``.
    """

    def __init__(self, texts: TextEncoder, config: Config) -> None:
        self.config = config.retrieve
        self.classes = config.task.classes
        self.apart = config.task.layered
        softmax = self.config.scoring == "softmax"
        known = (*self.classes, *(config.task.competitors if softmax else ()))
        self.text_features = class_features(texts, known)
        self.signs = config.task.signs
        self._companion_columns = group_columns(config.task.companions, self.classes, known)
        self._sign_columns = group_columns(config.task.signs, self.classes, known)
        self.logit_scale: float | None = None
        if softmax:
            self.logit_scale = self.config.logit_scale or texts.logit_scale

    def scores(self, features: Tensor) -> Tensor:
        """Return 100 * cosine of image features [n, d] and classes, float32 [n, n_classes]."""
        return (100 * features @ self.text_features[: len(self.classes)].T).cpu()

    def select(self, features: Tensor, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """Select up to ``top_k`` distinct candidates of each class, in class order, best first.

        Of equal merits the lower candidate id wins.

        Args:
            features: unit image features [n, d] of the candidates.
            candidates: in the order of their ids.
        """
        if not candidates:
            return ()
        scores = (100 * features @ self.text_features.T).cpu()
        ranking = rank(
            *(scores, self._companion_columns, candidates),
            *(self.config, self.logit_scale, self._sign_columns),
        )
        return select_classes(
            self.classes, ranking, candidates, self.config, self.signs, apart=self.apart
        )


def group_columns(
    groups: Mapping[str, Sequence[str]], classes: Sequence[ClassSpec], known: Sequence[ClassSpec]
) -> Tensor:
    """Return the columns of each class and its group, bool [n_classes, n_known]."""
    named = [{spec.label, *groups.get(spec.label, ())} for spec in classes]
    return torch.tensor([[spec.label in names for spec in known] for names in named])
