"""The row of an image in a consensus, made from its rows in several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salip_ray.config import ClassSpec
from salip_ray.consensus.votes import count_votes
from salip_ray.output.cells import pack_components, pack_masks
from salip_ray.output.masks import decode_rle, encode_png, label_map
from salip_ray.schema import ClassMask, ClipScores, Mask
from salip_ray.wording import counted

_STAGE, _TYPE = "consensus", "ImageError"


def make_row(
    rows: Sequence[Mapping[str, Any] | None],
    classes: Sequence[ClassSpec],
    labels: Sequence[Sequence[str]],
    *,
    changed: bool = False,
) -> dict[str, Any]:
    """Return the columns of a consensus that depend on the rows of the runs.

    An image needs two runs that labelled it, and one size; else it is an error row.

    Args:
        rows: of each run, in order; None if a run does not have the image.
        classes: of the consensus.
        labels: the names of the classes of each run.
        changed: the file changed between the runs, so they labelled other pixels.
    """
    voters = {n: row for n, row in enumerate(rows) if row is not None and row["status"] != "error"}
    sizes = {n: (row["height"], row["width"]) for n, row in voters.items()}
    if len(voters) < 2:
        return _error(f"{_few(len(voters), len(rows))}: {'; '.join(_why_silent(rows))}")
    if changed:
        return _error(
            "its file has another size or etag in some of the runs, so it changed between them: "
            "label it again"
        )
    if len(set(sizes.values())) > 1:
        shown = (f"{height} x {width} in run {n + 1}" for n, (height, width) in sizes.items())
        return _error(f"the image has other sizes (height x width): {', '.join(shown)}")
    first = min(voters)
    height, width = sizes[first]
    ballots = {n: _Ballot(row, labels[n], (height, width)) for n, row in voters.items()}
    masks: list[ClassMask] = []
    outcomes = []
    for spec in classes:
        agreed, reason = _agree(spec, ballots)
        masks += agreed
        outcomes.append(
            {
                "label": spec.label,
                "outcome": "empty" if reason else "labelled",
                "reason": reason,
            }
        )
    cells = pack_masks(masks)
    for cell, made in zip(cells, masks, strict=True):
        if made.method == "cascade":
            cell["instances"] = pack_components(made.mask, made.confidence)
    labelled = any(mask.method == "cascade" for mask in masks)
    return {
        "height": height,
        "width": width,
        "status": "ok" if labelled else "empty",
        "outcomes": outcomes,
        "error": None,
        "masks": cells,
        "n_candidates": None,
        "ranking": [],
        "spacing": voters[first]["spacing"],
        "_png": encode_png(label_map(masks, height, width, n_classes=len(classes))),
    }


class _Ballot:
    """The labels of one run on one image."""

    def __init__(
        self, row: Mapping[str, Any], labels: Sequence[str], size: tuple[int, int]
    ) -> None:
        self._labels, self._size = labels, size
        self._cells = {c["label"]: c for c in row["masks"] or () if c["method"] == "cascade"}
        self._reasons = {o["label"]: o["reason"] for o in row["outcomes"] or ()}

    def has(self, label: str) -> bool:
        return label in self._labels

    def mask(self, label: str) -> Mask:
        cell = self._cells.get(label)
        return np.zeros(self._size, np.bool_) if cell is None else decode_rle(cell["rle"])

    def figure(self, label: str, name: str) -> float:
        value = self._cells.get(label, {}).get(name)
        return float("nan") if value is None else float(value)

    def reason(self, label: str) -> str:
        return str(self._reasons.get(label) or "no reason is recorded")


def _agree(spec: ClassSpec, ballots: Mapping[int, _Ballot]) -> tuple[list[ClassMask], str]:
    """Return the agreed and the disputed mask of a class, and why there is no agreed one."""
    having = {n: ballot for n, ballot in ballots.items() if ballot.has(spec.label)}
    if not having:
        return [], "no run with this class labelled the image"
    masks = [ballot.mask(spec.label) for ballot in having.values()]
    alone = len(masks) == 1
    # The label of a single run is disputed as a whole.
    vote = count_votes([*masks, np.zeros_like(masks[0])] if alone else masks)
    clip = _mean_scores(spec.label, list(having.values()))
    both = [
        ClassMask(
            *(method, spec.label, spec.class_id, mask),
            clip=clip,
            confidence=confidence,
        )
        for method, mask, confidence in (
            ("cascade", vote.agreed, vote.agreement),
            ("disagreement", vote.disputed, None),
        )
        if mask.any()
    ]
    if vote.agreed.any():
        return both, ""
    if alone:
        return both, f"only run {next(iter(having)) + 1} labels this class"
    if not both:
        number, ballot = next(iter(having.items()))
        return [], f"no run has a label (run {number + 1}: {ballot.reason(spec.label)})"
    with_label = sum(bool(mask.any()) for mask in masks)
    runs = counted(len(masks), "run")
    return both, f"{with_label} of {runs} have a label, without a majority"


def _mean_scores(label: str, ballots: Sequence[_Ballot]) -> ClipScores | None:
    """Return the mean CLIP scores of a class, which order the classes of a label map."""

    def mean(name: str) -> float | None:
        known = [v for ballot in ballots if not np.isnan(v := ballot.figure(label, name))]
        return float(np.mean(known)) if known else None

    score = mean("clip_score")
    return None if score is None else ClipScores(score, presence=mean("presence"))


def _few(voters: int, runs: int) -> str:
    return f"{voters or 'none'} of {runs} runs labelled the image, two are needed"


def _why_silent(rows: Sequence[Mapping[str, Any] | None]) -> list[str]:
    reasons = []
    for number, row in enumerate(rows, start=1):
        if row is None:
            reasons.append(f"run {number} does not have it")
        elif row["status"] == "error":
            error = row["error"] or {}
            reasons.append(f"run {number} failed in {error.get('stage')}: {error.get('message')}")
    return reasons


def _error(message: str) -> dict[str, Any]:
    return {
        "status": "error",
        "error": {"stage": _STAGE, "type": _TYPE, "message": " ".join(message.split())[:1000]},
    }
