"""Step 4, second half: rank candidates for each class, and select the best.

SaLIP takes the candidates whose image features are closest to a class's text feature. Two options
go beyond the paper: ``scoring: softmax`` lets the other classes and distractors compete for a
candidate, and ``sam_prior`` adds SAM's own scores of the candidate.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.cascade.geometry import mask_window, shared_area
from salip_ray.config import ClassSpec, Config, RetrieveConfig
from salip_ray.schema import Candidate, ClipScores, RunnerUp, Selection

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


def select_classes(
    classes: Sequence[ClassSpec],
    ranking: Ranking,
    candidates: Sequence[Candidate],
    config: RetrieveConfig,
    signs: Container[str] = (),
    *,
    apart: bool = False,
) -> tuple[Selection, ...]:
    """Select candidates of every class, in class order, best first.

    With ``apart`` no two classes get one candidate: it goes to the class for which its merit is
    higher, then to the earlier one, and the other class takes its next best.
    """
    indices = {candidate.id: index for index, candidate in enumerate(candidates)}
    refused: list[set[int]] = [set() for _ in classes]
    while True:
        selected = [
            select_class(spec, column, ranking, candidates, config, signs, refused[column])
            for column, spec in enumerate(classes)
        ]
        conflict = False
        owner: dict[int, int] = {}
        for column in range(len(classes)) if apart else ():
            for index in (indices[selection.candidate_id] for selection in selected[column]):
                rival = owner.setdefault(index, column)
                if rival == column:
                    continue
                conflict = True
                loser = min(column, rival, key=lambda c: (ranking.merit[index, c].item(), -c))
                owner[index] = column + rival - loser
                refused[loser].add(index)
        if not conflict:
            return tuple(selection for of_class in selected for selection in of_class)


def select_class(
    spec: ClassSpec,
    column: int,
    ranking: Ranking,
    candidates: Sequence[Candidate],
    config: RetrieveConfig,
    signs: Container[str] = (),
    refused: Container[int] = (),
) -> list[Selection]:
    """Select up to ``top_k`` distinct candidates of one class that reach ``min_score``, best first.

    Args:
        spec: the class.
        column: of the class in the ranking.
        ranking: of the candidates.
        candidates: in the order of their ids.
        config: ``max_overlap``, ``min_score`` and ``runners_up`` are used.
        signs: labels of the classes that have signs, for the evidence.
        refused: indices of candidates that belong to another class.
    """
    merit, score = ranking.merit[:, column], ranking.score[:, column]
    # torch.topk does not define the order of ties; a stable sort does.
    ranked = torch.sort(merit, descending=True, stable=True).indices.tolist()
    order = [i for i in ranked if i not in refused]
    limited = score if ranking.probability is None else ranking.probability[:, column]
    least = -math.inf if config.min_score is None else config.min_score
    eligible = [i for i in order if limited[i].item() >= least]
    chosen = _first_distinct(eligible, candidates, spec.most(len(candidates)), config.max_overlap)
    others = [i for i in order if i not in chosen]
    best_other = score[others[0]].item() if others else None
    has_evidence = spec.label in signs
    runners_up = tuple(
        RunnerUp(
            candidates[i].id,
            score[i].item(),
            _value_at(ranking.probability, i, column),
            _value_at(ranking.evidence, i, column) if has_evidence else None,
        )
        for i in others[: config.runners_up]
    )
    return [
        Selection(
            label=spec.label,
            class_id=spec.class_id,
            candidate_id=candidates[index].id,
            rank=position,
            clip=ClipScores(
                score=score[index].item(),
                margin=None if best_other is None else score[index].item() - best_other,
                probability=_value_at(ranking.probability, index, column),
                presence=_value_at(ranking.presence, column),
                evidence=_value_at(ranking.evidence, index, column) if has_evidence else None,
            ),
            runners_up=() if position else runners_up,
        )
        for position, index in enumerate(chosen)
    ]


def group_columns(
    groups: Mapping[str, Sequence[str]], classes: Sequence[ClassSpec], known: Sequence[ClassSpec]
) -> Tensor:
    """Return the columns of each class and its group, bool [n_classes, n_known]."""
    named = [{spec.label, *groups.get(spec.label, ())} for spec in classes]
    return torch.tensor([[spec.label in names for spec in known] for names in named])


def _value_at(values: Tensor | None, *index: int) -> float | None:
    return None if values is None else values[index].item()


def _first_distinct(
    order: Sequence[int], candidates: Sequence[Candidate], k: int, max_overlap: float
) -> list[int]:
    """Return the first ``k`` indices of ``order`` whose masks do not duplicate an earlier one."""
    chosen: list[int] = []
    windows = np.zeros((len(order), 4), np.int64)  # of the chosen ones
    for index in order:
        if len(chosen) == k:
            break
        # Hundreds of objects may be chosen: only those within reach are compared.
        own = windows[len(chosen)] = mask_window(candidates[index].mask)
        earlier = windows[: len(chosen)]
        near = np.flatnonzero((earlier[:, :2] < own[2:]).all(1) & (own[:2] < earlier[:, 2:]).all(1))
        shares = (shared_area(candidates[index], candidates[chosen[at]]) for at in near)
        if all(share <= max_overlap for share in shares):
            chosen.append(index)
    return chosen
