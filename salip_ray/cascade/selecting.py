"""Select the best candidates of each class from a ranking."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from salip_ray.cascade.geometry import mask_window, shared_area
from salip_ray.config import ClassSpec, RetrieveConfig
from salip_ray.schema import Candidate, ClipScores, RunnerUp, Selection

if TYPE_CHECKING:
    from salip_ray.cascade.ranking import Ranking

_COVERED = 0.9  # share of a candidate that a later class may not have
_MOST_STATES = 64  # of the search for the best choice of all classes; then it is greedy

_Choice = tuple[int, int]  # class column and candidate index
_State = tuple[int, float, tuple[int, ...], frozenset[_Choice], list[list[Selection]]]


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

    With ``apart`` no two classes get one candidate, and no class one that a candidate of a later
    class covers, because it would have no pixel of its own. Of all such choices the one with the
    most candidates and then the highest sum of merits is taken. Of equal ones, a candidate goes to
    the class for which its merit is higher, then to the earlier class.
    """
    indices = {candidate.id: index for index, candidate in enumerate(candidates)}

    def state(refused: frozenset[_Choice], path: tuple[int, ...]) -> _State:
        selected = [
            select_class(
                *(spec, column, ranking, candidates, config, signs),
                {index for of_column, index in refused if of_column == column},
            )
            for column, spec in enumerate(classes)
        ]
        merits = [
            ranking.merit[indices[selection.candidate_id], column].item()
            for column, of_class in enumerate(selected)
            for selection in of_class
        ]
        return -len(merits), -math.fsum(merits), path, refused, selected

    queue = [state(frozenset(), ())]
    for number in itertools.count():
        _, _, path, refused, selected = heapq.heappop(queue)
        chosen = [[indices[s.candidate_id] for s in of_class] for of_class in selected]
        conflict = _conflict(chosen, candidates) if apart else None
        if conflict is None:
            return tuple(selection for of_class in selected for selection in of_class)
        # The choice with the lower merit first; of equal ones, that of the later class.
        losers = sorted(conflict, key=lambda c: (ranking.merit[c[1], c[0]].item(), -c[0]))
        if number >= _MOST_STATES:
            queue, losers = [], losers[:1]
        for turn, loser in enumerate(losers):
            heapq.heappush(queue, state(refused | {loser}, (*path, turn)))
    raise AssertionError("a class that has refused all candidates has no conflict")


def _conflict(
    chosen: Sequence[Sequence[int]], candidates: Sequence[Candidate]
) -> tuple[_Choice, _Choice] | None:
    """Return two choices of different classes that exclude each other, if there are any."""
    for (column, of_class), (later, of_later) in itertools.combinations(enumerate(chosen), 2):
        for index, other in itertools.product(of_class, of_later):
            if index == other or _covers(candidates[other], candidates[index]):
                return (column, index), (later, other)
    return None


def _covers(upper: Candidate, lower: Candidate) -> bool:
    x0, y0, x1, y1 = lower.box
    left, top, right, bottom = upper.box
    if x0 > right or x1 < left or y0 > bottom or y1 < top:
        return False
    return bool(np.count_nonzero(upper.mask & lower.mask) >= _COVERED * lower.area)


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


def _value_at(values: Tensor | None, *index: int) -> float | None:
    return None if values is None else values[index].item()
