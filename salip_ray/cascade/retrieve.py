"""Step 4, second half: the k candidates of each class that CLIP scores highest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from salip_ray.cascade.crops import visual_prompt
from salip_ray.cascade.texts import class_features
from salip_ray.config import Config
from salip_ray.models.clip import ClipModel
from salip_ray.rows import Candidate, Image, Selection


class Retriever:
    """Scores candidates against every class of a task; the sentences are encoded once, here.

    Args:
        clip: the model, on the device to use.
        config: its ``task`` (classes, sentences, top-k) and ``retrieve`` sections are used.
    """

    def __init__(self, clip: ClipModel, config: Config) -> None:
        self.clip = clip
        self.config = config.retrieve
        self.classes = config.task.classes
        self.class_features = class_features(clip, self.classes)

    def __call__(self, working: Image, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """Select for each class its ``top_k`` distinct candidates, or all where there are fewer.

        In the order of the classes, best first. Of equal scores the lower candidate id wins.
        """
        candidates = sorted(candidates, key=lambda candidate: candidate.id)
        if not candidates:
            return ()
        scores = self.scores(working, candidates)
        selections = []
        for spec, column in zip(self.classes, scores.T, strict=True):
            # torch.topk promises nothing about ties; a stable sort does.
            order = torch.sort(column, descending=True, stable=True).indices.tolist()
            chosen = _first_distinct(order, candidates, spec.top_k, self.config.max_overlap)
            best_other = next((column[i].item() for i in order if i not in chosen), math.nan)
            selections += [
                Selection(
                    label=spec.label,
                    class_id=spec.class_id,
                    candidate_id=candidates[index].id,
                    rank=rank,
                    score=column[index].item(),
                    margin=column[index].item() - best_other,
                )
                for rank, index in enumerate(chosen)
            ]
        return tuple(selections)

    def scores(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """100 * cosine of each candidate and class, float32 [n, n_classes] on the CPU."""
        size = self.config.batch_size
        features = [
            self.clip.encode_images(
                [visual_prompt(working, c, self.config) for c in candidates[start : start + size]]
            )
            for start in range(0, len(candidates), size)
        ]
        return (100 * torch.cat(features) @ self.class_features.T).cpu()


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
