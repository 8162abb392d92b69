"""Step 4, by what candidates are ranked: CLIP's cosine, and what may take its place.

The paper takes the candidates nearest to a class's sentences. Here a candidate may also be asked
what else it could be (distractors, softmax), and SAM's own opinion of it may count.

Step 4, first half: a class's sentences as one text feature.

Step 4, second half: the k candidates of each class that rank highest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.cascade.visual_prompts import visual_prompt
from salip_ray.config import ClassSpec, Config, RetrieveConfig
from salip_ray.schema import Candidate, ClipScores, Image, RunnerUp, Selection

if TYPE_CHECKING:
    from salip_ray.models.clip.load import ClipModel

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


def class_features(clip: ClipModel, classes: Sequence[ClassSpec]) -> Tensor:
    """One unit vector per class, float32 [n_classes, d] on CLIP's device.

    As SaLIP: the mean over the class's sentence features as the text tower gives them, normalised
    after the mean (open_clip's zero-shot classifier normalises each sentence before it as well).
    """
    means = [clip.encode_texts(spec.sentences, normalize=False).mean(dim=0) for spec in classes]
    return F.normalize(torch.stack(means), dim=-1)


class ClipRetriever:
    """Ranks candidates for every class of a task; the sentences are encoded once, here.

    Args:
        clip: the model, on the device to use.
        config: its ``retrieve`` section and of its ``task`` classes, distractors, companions and
            top-k are used.
    """

    def __init__(self, clip: ClipModel, config: Config) -> None:
        self.clip = clip
        self.config = config.retrieve
        self.classes = config.task.classes
        softmax = self.config.scoring == "softmax"
        known = (*self.classes, *(config.task.competitors if softmax else ()))
        self.text_features = class_features(clip, known)
        together = [
            {spec.label, *config.task.companions.get(spec.label, ())} for spec in self.classes
        ]
        self.companions = torch.tensor(
            [[other.label in names for other in known] for names in together]
        )
        self.logit_scale = math.nan
        if softmax:
            self.logit_scale = self.config.logit_scale or clip.logit_scale

    def __call__(self, working: Image, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """Select for each class its ``top_k`` distinct candidates, or all where there are fewer.

        In the order of the classes, best first. Of equal merits the lower candidate id wins.
        """
        candidates = sorted(candidates, key=lambda candidate: candidate.id)
        return self.select(self.image_features(working, candidates), candidates)

    def set_batch_size(self, size: int) -> None:
        """Show ``size`` candidates to CLIP at a time from now on."""
        self.config = self.config.model_copy(update={"batch_size": size})

    def image_features(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """What CLIP sees in each candidate: unit vectors, float32 [n, d].

        With several pictures of a candidate, the mean of their features, normalised.
        """
        seen = [self._view(working, candidates, config) for config in views(self.config)]
        return seen[0] if len(seen) == 1 else F.normalize(torch.stack(seen).mean(dim=0), dim=-1)

    def scores(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """100 * cosine of each candidate and class, float32 [n, n_classes] on the CPU."""
        texts = self.text_features[: len(self.classes)]
        return (100 * self.image_features(working, candidates) @ texts.T).cpu()

    def select(self, features: Tensor, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """The selections, from image features [n, d] of candidates in the order of their ids."""
        if not candidates:
            return ()
        scores = (100 * features @ self.text_features.T).cpu()
        ranking = rank(scores, self.companions, candidates, self.config, self.logit_scale)
        selections = []
        for column, spec in enumerate(self.classes):
            # torch.topk promises nothing about ties; a stable sort does.
            merit, score = ranking.merit[:, column], ranking.score[:, column]
            order = torch.sort(merit, descending=True, stable=True).indices.tolist()
            chosen = _first_distinct(order, candidates, spec.top_k, self.config.max_overlap)
            others = [i for i in order if i not in chosen]
            best_other = score[others[0]].item() if others else None
            runners_up = tuple(
                RunnerUp(candidates[i].id, score[i].item())
                for i in others[: self.config.runners_up]
            )
            selections += [
                Selection(
                    label=spec.label,
                    class_id=spec.class_id,
                    candidate_id=candidates[index].id,
                    rank=place,
                    clip=ClipScores(
                        score=score[index].item(),
                        margin=None if best_other is None else score[index].item() - best_other,
                        probability=_at(ranking.probability, index, column),
                        presence=_at(ranking.presence, column),
                    ),
                    runners_up=() if place else runners_up,
                )
                for place, index in enumerate(chosen)
            ]
        return tuple(selections)

    def _view(
        self, working: Image, candidates: Sequence[Candidate], config: RetrieveConfig
    ) -> Tensor:
        """Features of one picture of each candidate."""
        size = config.batch_size
        features = [
            self.clip.encode_images(
                [visual_prompt(working, c, config) for c in candidates[start : start + size]]
            )
            for start in range(0, len(candidates), size)
        ]
        return torch.cat(features) if features else self.text_features[:0]


def _at(values: Tensor | None, *index: int) -> float | None:
    return None if values is None else values[index].item()


def views(config: RetrieveConfig) -> Iterator[RetrieveConfig]:
    """One configuration, of one visual prompt and padding, for each picture of a candidate."""
    paddings = ("none", "square") if config.padding == "both" else (config.padding,)
    for prompt in config.visual_prompts:
        for padding in paddings:
            yield config.model_copy(
                update={"visual_prompt": prompt, "ensemble": (), "padding": padding}
            )


def _first_distinct(
    order: Sequence[int], candidates: Sequence[Candidate], k: int, max_overlap: float
) -> list[int]:
    """The first ``k`` indices of ``order`` whose masks are not nearly those of earlier ones.

    Overlap is the share of the smaller mask that both have.
    """
    chosen: list[int] = []
    for index in order:
        if len(chosen) == k:
            break
        mask = candidates[index].mask
        shared = (
            np.count_nonzero(mask & candidates[earlier].mask)
            / max(1, min(candidates[index].area, candidates[earlier].area))
            for earlier in chosen
        )
        if all(share <= max_overlap for share in shared):
            chosen.append(index)
    return chosen
