"""Models of other packages as steps of the cascade.

Your own model returns little: masks or boxes with scores, a table of scores, or masks. The classes
here check that (:mod:`salip_ray.cascade.own_results`), and fill in ids, areas and points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salip_ray.cascade.candidates import mask_boxes, within_limits
from salip_ray.cascade.interfaces import (
    Embedding,
    Instances,
    OwnProposer,
    OwnRefiner,
    OwnRetriever,
    Proposals,
    RefinedMasks,
)
from salip_ray.cascade.own_results import Array, OwnModel, as_array
from salip_ray.cascade.ranking import group_columns, merit_ranking, rank
from salip_ray.cascade.selecting import select_class, select_classes
from salip_ray.config import Config
from salip_ray.schema import Box, Candidate, Image, Selection, Size


class ProposerOf(OwnModel):
    """A proposer of another package as steps 1 and 2.

    Args:
        model: the model.
        config: its area limits are used, and its classes if the model labels its instances.
        name: of the model in messages; by default that of its class.
        labels: the model labels its instances.
    """

    def __init__(
        self, model: OwnProposer, config: Config, *, name: str | None = None, labels: bool = False
    ) -> None:
        super().__init__(model, name, config.propose.points_per_batch)
        self.config = config
        self.labels = labels or bool(getattr(model, "labels_candidates", False))

    def __call__(self, working: Image) -> Proposals:
        """Propose candidates on a working image, uint8 RGB [H, W, 3].

        Raises:
            ModelError: the result is not usable.
        """
        result = self.model(working.copy())  # read-only in a job, and the model may change it
        if isinstance(result, Proposals):
            return result
        if not isinstance(result, Instances):
            raise self.fail(f"returned {type(result).__name__}, expected salip_ray.Instances")
        size = working.shape[0], working.shape[1]
        candidates = self._candidates(result, size)
        within = within_limits(candidates, self.config, size)
        return Proposals(
            candidates=within,
            n_proposed=len(candidates),
            embedding=self._embedding(result.embedding),
            selections=self._by_label(result, within) if self.labels else None,
        )

    def _candidates(self, result: Instances, size: Size) -> list[Candidate]:
        height, width = size
        scores = self.numbers(result.scores, "scores", (None,))
        count = len(scores)
        stability: Array = np.ones(count, np.float32)
        if result.stability is not None:
            stability = self.numbers(result.stability, "stability", (count,))
        if result.masks is None and result.boxes is None:
            raise self.fail("returned neither masks nor boxes")
        boxes = None
        if result.boxes is not None:
            last = np.array([width - 1, height - 1] * 2)
            given = result.boxes if count else np.zeros((0, 4))
            boxes = np.clip(self.numbers(given, "boxes", (count, 4)), 0, last)
            if (boxes[:, :2] > boxes[:, 2:]).any():
                raise self.fail("returned a box whose right or bottom is before its left or top")
        if result.masks is None:
            assert boxes is not None
            masks = _filled(boxes, size)
        else:
            masks = self.masks(result.masks if count else np.zeros((0, *size)), count, size)
        if boxes is None:
            boxes = mask_boxes(torch.as_tensor(masks)).numpy().astype(np.float64)
        whole = (0.0, 0.0, width - 1.0, height - 1.0)
        return [
            Candidate(
                id=index,
                mask=masks[index],
                area=int(np.count_nonzero(masks[index])),
                box=(x0, y0, x1, y1),
                predicted_iou=float(scores[index]),
                stability_score=float(stability[index]),
                point=((x0 + x1) / 2, (y0 + y1) / 2),
                crop_box=whole,
            )
            for index, (x0, y0, x1, y1) in enumerate(boxes.tolist())
        ]

    def _embedding(self, embedding: Any) -> Embedding | None:
        """Return an embedding as a tensor or named tensors."""
        if embedding is None or self.embedding is None:
            return None
        if isinstance(embedding, Mapping):
            return {str(name): torch.as_tensor(value) for name, value in embedding.items()}
        return torch.as_tensor(embedding)

    def _by_label(
        self, result: Instances, candidates: Sequence[Candidate]
    ) -> tuple[Selection, ...]:
        """Return the best candidates of each class, by the labels of the model."""
        labels = result.labels
        if labels is None or len(labels) != len(as_array(result.scores)):
            n = "none" if labels is None else str(len(labels))
            raise self.fail(f"labels its instances, but returned {n} of the labels")
        classes = self.config.task.classes
        selections: list[Selection] = []
        for spec in classes:
            own = [c for c in candidates if labels[c.id] == spec.label]
            scores = torch.tensor([c.predicted_iou for c in own])
            ranking = merit_ranking(scores[:, None], own, self.config.retrieve)
            selections += select_class(spec, 0, ranking, own, self.config.retrieve)
        return tuple(selections)


def _filled(boxes: Array, size: Size) -> npt.NDArray[np.bool_]:
    """Return a mask of the pixels in each box."""
    masks = np.zeros((len(boxes), *size), np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, np.round(boxes).astype(int), strict=True):
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return masks


class RetrieverOf(OwnModel):
    """A retriever of another package as steps 3 and 4.

    Args:
        model: the model.
        config: its ``retrieve`` section and its task are used.
        name: of the model in messages; by default that of its class.
    """

    def __init__(self, model: OwnRetriever, config: Config, *, name: str | None = None) -> None:
        super().__init__(model, name, config.retrieve.batch_size)
        self.config = config.retrieve
        self.task = config.task

    def __call__(self, working: Image, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """Select up to ``top_k`` distinct candidates of each class, in class order, best first.

        Raises:
            ModelError: the result is not usable.
        """
        candidates = sorted(candidates, key=lambda candidate: candidate.id)
        if not candidates:
            return ()
        result = self.model(working.copy(), candidates)
        if _is_selections(result):
            self._check(result, candidates)
            return tuple(result)
        scores = self._table(result, len(candidates))
        classes = self.task.classes
        if self.config.scoring == "softmax" and scores.shape[1] > len(classes):
            scale = self.config.logit_scale or 100.0
            known = (*classes, *self.task.competitors)
            ranking = rank(
                *(scores, group_columns(self.task.companions, classes, known), candidates),
                *(self.config, scale, group_columns(self.task.signs, classes, known)),
            )
        else:
            ranking = merit_ranking(scores[:, : len(classes)], candidates, self.config)
        apart = self.task.layered
        return select_classes(
            classes, ranking, candidates, self.config, self.task.signs, apart=apart
        )

    def scores(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """Return the score of each candidate for each class, float32 [n, n_classes]."""
        n_classes = len(self.task.classes)
        if not candidates:
            return torch.zeros(0, n_classes)
        result = self.model(working.copy(), candidates)
        if _is_selections(result):
            return selection_scores(result, candidates, n_classes)
        return self._table(result, len(candidates))[:, :n_classes]

    def _table(self, result: Any, count: int) -> Tensor:
        scores = self.numbers(result, "scores", (count, None))
        n_classes, n_others = len(self.task.classes), len(self.task.competitors)
        if scores.shape[1] not in (n_classes, n_classes + n_others):
            raise self.fail(
                f"returned scores of shape {list(scores.shape)}, expected [{count}, {n_classes}], "
                f"a column for each class (or {n_classes + n_others}, with the distractors)"
            )
        return torch.as_tensor(scores, dtype=torch.float32)

    def _check(self, selections: Sequence[Selection], candidates: Sequence[Candidate]) -> None:
        known = {candidate.id for candidate in candidates}
        for selection in selections:
            if selection.candidate_id not in known:
                raise self.fail(f"selected candidate {selection.candidate_id}, which is not known")
            if not np.isfinite(selection.clip.score):
                raise self.fail("returned scores with NaN or infinite values")


def _is_selections(result: Any) -> bool:
    return isinstance(result, list | tuple) and all(isinstance(s, Selection) for s in result)


def selection_scores(
    selections: Sequence[Selection], candidates: Sequence[Candidate], n_classes: int
) -> Tensor:
    """Return the scores that selections record, float32 [n, n_classes]; 0 for all others."""
    position = {candidate.id: index for index, candidate in enumerate(candidates)}
    scores = torch.zeros(len(candidates), n_classes)
    for item in selections:
        scores[position[item.candidate_id], item.class_id - 1] = item.clip.score
        for runner in item.runners_up:
            scores[position[runner.candidate_id], item.class_id - 1] = runner.score
    return scores


class RefinerOf(OwnModel):
    """A refiner of another package as step 5.

    Args:
        model: the model.
        config: ``refine.batch_size`` is used.
        name: of the model in messages; by default that of its class.
    """

    def __init__(self, model: OwnRefiner, config: Config, *, name: str | None = None) -> None:
        super().__init__(model, name, config.refine.batch_size)

    def encode(self, working: Image) -> Any:
        """Return what the model needs of a working image; None if it needs nothing."""
        encode = getattr(self.model, "encode", None)
        return None if encode is None else encode(working.copy())

    def __call__(
        self, embedding: Any, *, boxes: Sequence[Box], working_size: Size, original_size: Size
    ) -> RefinedMasks:
        """Predict one mask per box.

        Raises:
            ModelError: the result is not usable.
        """
        count = len(boxes)
        result = self.model(
            embedding, boxes=boxes, working_size=working_size, original_size=original_size
        )
        ious: Any = np.full(count, np.nan)
        stability: Any = np.full(count, np.nan)
        masks = result
        if isinstance(result, RefinedMasks):
            masks, ious, stability = result.masks, result.predicted_iou, result.stability
            ious = self.array(ious, "predicted IoUs", (count,))
            stability = self.array(stability, "stability", (count,))
        return RefinedMasks(
            self.masks(masks, count, original_size),
            np.asarray(ious, np.float32),
            np.asarray(stability, np.float32),
        )
