"""Choose the labels of the slices of a volume together, from refined rows.

A refined row of a volume carries its alternatives: the masks of each class with a runner-up instead
of a retrieved candidate. They are light (RLEs and scores), so all slices of a shard are in memory
at its commit, without pixels and embeddings. Slices of other shards or of another size, and slices
that are farther apart than a gap that may be filled, have no influence on each other. So the rows
of a shard bound the memory, and a shard depends on its own images only.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco

from salip_ray.cascade.volumes import best_path, between
from salip_ray.config import ClassSpec, Config
from salip_ray.output.cells import pack_components, pack_masks, read_mask
from salip_ray.output.masks import decode_rle, encode_png, label_map
from salip_ray.pipeline.rows.columns import TYPES
from salip_ray.pipeline.stages import BLANK
from salip_ray.schema import ClassMask, Outcome

_REWRITTEN = ("status", "outcomes", "masks", "ranking", "_png")
#: Penalty per unit of CLIP's logit below the retrieved candidate, and the largest difference.
_CLIP_WEIGHT, _MOST = 0.05, 10.0
#: The score of nothing if every image is to be labelled: only slices without a mask stay empty.
_NEVER = -1e3
_NEEDED = ("volume", "slice", "height", "width", "_alternatives", *_REWRITTEN)


def choose_labels(rows: pa.Table, config: Config) -> pa.Table:
    """Return refined rows with the labels of each volume chosen for all of its slices.

    Error rows and images that are no slices stay as they are.

    Args:
        rows: of whole volumes, or of what a shard has of them, in any order.
        config: its ``volumes`` and ``task`` are used.
    """
    if "_alternatives" not in rows.column_names:
        return rows
    volumes: dict[str, list[int]] = defaultdict(list)
    for index, (volume, status) in enumerate(
        zip(rows["volume"].to_pylist(), rows["status"].to_pylist(), strict=True)
    ):
        if volume is not None and status != "error":
            volumes[volume].append(index)
    changed: dict[int, dict[str, Any]] = {}
    for indices in volumes.values():
        slices = rows.select(_NEEDED).take(pa.array(indices)).to_pylist()
        order = sorted(range(len(slices)), key=lambda i: slices[i]["slice"])
        stack = [_Slice(slices[i]) for i in order]
        for near in _split_apart(stack, config.volumes.fill_gaps + 1):
            for spec in config.task.classes:
                _choose_class(near, spec, config)
        changed |= {
            indices[i]: item.cells(config)
            for i, item in zip(order, stack, strict=True)
            if item.is_changed
        }
    return _rewritten(rows.drop_columns(["_alternatives"]), changed)


class _Slice:
    """One slice: the cells of its row, and the label chosen for each class."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.number: int = row["slice"]
        self.size = row["height"], row["width"]
        self.is_blank = all(item["reason"] == BLANK for item in row["outcomes"])
        self.is_changed = False
        self._masks = list(row["masks"])
        self._outcomes = {item["label"]: item for item in row["outcomes"]}

    def alternatives(self, label: str) -> list[Mapping[str, Any]]:
        return [cell for cell in self.row["_alternatives"] or () if cell["label"] == label]

    def chosen(self, label: str) -> Mapping[str, Any] | None:
        return next((cell for cell in self._masks if _is_label(cell, label)), None)

    def choose(self, label: str, cell: Mapping[str, Any] | None, outcome: Outcome) -> None:
        """Label a class with a mask cell; None leaves it empty."""
        self.is_changed = True
        others = [item for item in self._masks if not _is_label(item, label)]
        self._masks = others if cell is None else [cell, *others]
        self._outcomes[label] = {
            "label": label,
            "outcome": outcome.outcome,
            "reason": outcome.reason,
        }

    def cells(self, config: Config) -> dict[str, Any]:
        """Return the new cells of the row."""
        order = {spec.label: spec.class_id for spec in config.task.classes}
        cascade = sorted(
            (cell for cell in self._masks if cell["method"] == "cascade"),
            key=lambda cell: order[cell["label"]],
        )
        masks = [*cascade, *(cell for cell in self._masks if cell["method"] != "cascade")]
        taken = {(cell["label"], i) for cell in cascade for i in cell["candidate_ids"]}
        labels = label_map([read_mask(cell) for cell in cascade], *self.size, n_classes=len(order))
        return {
            "status": "ok" if cascade else "empty",
            "outcomes": [self._outcomes[label] for label in order],
            "masks": masks,
            "ranking": [
                {**entry, "retrieved": (entry["label"], entry["candidate_id"]) in taken}
                for entry in self.row["ranking"]
            ],
            "_png": encode_png(labels),
        }


def _split_apart(stack: Sequence[_Slice], farthest: int) -> list[list[_Slice]]:
    """Return runs of slices of one size whose numbers are at most ``farthest`` apart.

    Slices can be missing between those of a shard: error rows, or files whose names have another
    order than their positions. Pages of a TIFF can have several sizes; their masks do not compare.
    """
    runs: list[list[_Slice]] = []
    for item in stack:
        last = runs[-1][-1] if runs else None
        near = last is not None and item.number - last.number <= farthest
        if near and last is not None and item.size == last.size:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _is_label(cell: Mapping[str, Any], label: str) -> bool:
    return bool(cell["method"] == "cascade" and cell["label"] == label)


def _choose_class(stack: Sequence[_Slice], spec: ClassSpec, config: Config) -> None:
    """Choose the labels of one class on all slices, and fill its gaps."""
    label, options = spec.label, [item.alternatives(spec.label) for item in stack]
    if not any(options):
        return
    path = best_path(
        [_scores(cells) for cells in options],
        [_overlaps(one, next_) for one, next_ in itertools.pairwise(options)],
        nothing=config.least_confidence or _NEVER,
        continuity=config.volumes.continuity,
    )
    for item, cells, choice in zip(stack, options, path, strict=True):
        before = item.chosen(label)
        if choice is not None and not _is_same(cells[choice], before):
            item.choose(label, cells[choice], Outcome(label, "labelled"))
        elif choice is None and before is not None:
            item.choose(label, None, Outcome(label, "empty", _why_nothing(before)))
    labelled = [position for position, item in enumerate(stack) if item.chosen(label) is not None]
    for before_gap, after_gap in itertools.pairwise(labelled):
        length = stack[after_gap].number - stack[before_gap].number - 1
        if after_gap - before_gap > 1 and length <= config.volumes.fill_gaps:
            _fill_gap(stack[before_gap : after_gap + 1], spec)


def _fill_gap(stack: Sequence[_Slice], spec: ClassSpec) -> None:
    """Label the slices between the first and the last of ``stack`` with masks between theirs."""
    first, last = stack[0], stack[-1]
    cells = [item.chosen(spec.label) for item in (first, last)]
    before, after = (decode_rle(cell["rle"]) for cell in cells if cell is not None)
    # No model scored these masks, so they have the lower confidence of their neighbours.
    confidence = min(cell["confidence"] for cell in cells if cell is not None)
    reason = f"filled between the slices {first.number} and {last.number}"
    for item in stack[1:-1]:
        position = (item.number - first.number) / (last.number - first.number)
        mask = between(before, after, position)
        if mask.any() and mask.shape == item.size and not item.is_blank:
            made = ClassMask(*("cascade", spec.label, spec.class_id, mask), confidence=confidence)
            (cell,) = pack_masks([made])
            cell["instances"] = pack_components(mask, confidence)
            item.choose(spec.label, cell, Outcome(spec.label, "labelled", reason))


def _scores(cells: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """Return the expected Dice of each possible label, lowered if CLIP prefers another candidate.

    A label without an estimate counts as an even chance.
    """
    scores = [0.5 if math.isnan(cell["confidence"]) else cell["confidence"] for cell in cells]
    logits = np.array([_logit(cell) for cell in cells])
    return np.asarray(scores + _CLIP_WEIGHT * np.clip(logits - logits[:1], -_MOST, 0))


def _logit(cell: Mapping[str, Any]) -> float:
    """Return CLIP's logit of the class, up to a constant of the image."""
    probability: float = cell["clip_probability"]
    if math.isnan(probability):
        return float(cell["clip_score"])  # CLIP's scale of a cosine is 100
    return math.log(max(probability, 1e-12))


def _is_same(cell: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is not None and cell["candidate_ids"] == other["candidate_ids"]


def _overlaps(
    one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
) -> npt.NDArray[np.float64]:
    """Return the Dice of each pair of labels, [n, m]."""
    if not one or not other:
        return np.zeros((len(one), len(other)))
    rles = [[dict(cell["rle"]) for cell in cells] for cells in (one, other)]
    iou = np.asarray(coco.iou(*rles, [False] * len(other)), np.float64)
    return 2 * iou / (1 + iou)


def _why_nothing(cell: Mapping[str, Any]) -> str:
    return f"the best path through the volume leaves it empty (confidence {cell['confidence']:.3f})"


def _rewritten(rows: pa.Table, changed: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    """Return the rows with the new cells of some of them, by their index."""
    if not changed:
        return rows
    for name in _REWRITTEN:
        old = rows[name].cast(TYPES[name]).combine_chunks()
        new = pa.array([cells[name] for cells in changed.values()], TYPES[name])
        order = np.arange(rows.num_rows)
        order[list(changed)] = rows.num_rows + np.arange(len(changed))
        both = pa.concat_arrays([old, new]).take(pa.array(order))
        rows = rows.set_column(rows.schema.get_field_index(name), name, both)
    return rows
