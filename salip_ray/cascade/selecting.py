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

_COVERED = 0.9  # least share of the pixels of a candidate that is covered
_MOST_EXAMINED = 1000  # candidates, in all states of the search; then it is greedy

_Choice = tuple[int, int]  # class column and candidate index
_Conflict = tuple[_Choice, _Choice]
# Of a state: - number of candidates, - sum of merits, turns taken, refused, selected by class.
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

    With ``apart``, as ``task.layered`` asks for, no two classes get the same candidate, and no
    candidate of a class is covered to 90 % by one of a later class. A search looks for the choice
    with the most candidates, and of those for the one with the highest sum of merits. If two are
    equal, a candidate goes to the class for which its merit is higher, then to the earlier class.
    The search is bounded: past its limit each conflict costs the class of the lower merit its
    candidate, and the choice need not be the best.
    """
    indices = {candidate.id: index for index, candidate in enumerate(candidates)}

    def select(column: int, refused: frozenset[_Choice]) -> list[Selection]:
        own = {index for of_column, index in refused if of_column == column}
        spec = classes[column]
        return select_class(spec, column, ranking, candidates, config, signs, own)

    def state(
        refused: frozenset[_Choice], path: tuple[int, ...], selected: list[list[Selection]]
    ) -> _State:
        merits = [
            ranking.merit[indices[selection.candidate_id], column].item()
            for column, of_class in enumerate(selected)
            for selection in of_class
        ]
        return -len(merits), -math.fsum(merits), path, refused, selected  # a heap pops the least

    first = frozenset[_Choice]()
    queue = [state(first, (), [select(column, first) for column in range(len(classes))])]
    known, examined = {first}, 0
    while True:
        negative_count, _, path, refused, selected = heapq.heappop(queue)
        chosen = [[indices[s.candidate_id] for s in of_class] for of_class in selected]
        conflicts = _conflicts(chosen, candidates) if apart else []
        if not conflicts:
            return tuple(selection for of_class in selected for selection in of_class)
        examined -= negative_count
        if examined > _MOST_EXAMINED:
            refused |= _losers(conflicts, ranking)
            selected = [select(column, refused) for column in range(len(classes))]
            queue = [state(refused, path, selected)]
            continue
        for turn, loser in enumerate(_by_merit(conflicts[0], ranking)):
            more = refused | {loser}
            if more not in known:
                known.add(more)
                other = [*selected]
                other[loser[0]] = select(loser[0], more)
                heapq.heappush(queue, state(more, (*path, turn), other))


def _by_merit(conflict: _Conflict, ranking: Ranking) -> list[_Choice]:
    """Return both choices, that of the lower merit first; of equal ones, of the later class."""
    return sorted(conflict, key=lambda c: (ranking.merit[c[1], c[0]].item(), -c[0]))


def _losers(conflicts: Sequence[_Conflict], ranking: Ranking) -> set[_Choice]:
    """Return one choice of each conflict, to refuse all of them at once."""
    losers: set[_Choice] = set()
    for conflict in conflicts:
        if losers.isdisjoint(conflict):
            losers.add(_by_merit(conflict, ranking)[0])
    return losers


def _conflicts(chosen: Sequence[Sequence[int]], candidates: Sequence[Candidate]) -> list[_Conflict]:
    """Return the pairs of choices of different classes that exclude each other."""
    conflicts: list[_Conflict] = []
    for (column, of_class), (later, of_later) in itertools.combinations(enumerate(chosen), 2):
        if not of_class or not of_later:
            continue
        first, second = (
            np.array([mask_window(candidates[index].mask) for index in of_any])
            for of_any in (of_class, of_later)
        )
        first, second = first[:, None], second[None]
        near = (first[..., :2] < second[..., 2:]) & (second[..., :2] < first[..., 2:])
        for row, col in np.argwhere(near.all(axis=-1)).tolist():
            index, other = of_class[row], of_later[col]
            if exclude_each_other(candidates[index], candidates[other]):
                conflicts.append(((column, index), (later, other)))
    return conflicts


def exclude_each_other(earlier: Candidate, later: Candidate) -> bool:
    """Return whether an earlier and a later class of layers cannot have these two candidates."""
    return earlier.id == later.id or covers(later, earlier)


def covers(above: Candidate, below: Candidate) -> bool:
    """Return whether nearly all pixels of a candidate are those of another, too."""
    return bool(np.count_nonzero(above.mask & below.mask) >= _COVERED * below.area)


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
        refused: indices of candidates that the class must not have.
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
