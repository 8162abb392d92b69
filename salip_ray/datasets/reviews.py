"""Decisions of people about labels, stored next to the shards, which never change.

OUT/reviews/decisions.json             image id -> its decisions, the oldest first
OUT/reviews/masks/IMAGE_ID-SHA256.png  corrected label maps

A decision covers the classes that its review showed. It counts until a later one covers them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from salip_ray.errors import OutputError
from salip_ray.output.cells import pack_components
from salip_ray.output.layout import DECISIONS, REVIEW_MASKS
from salip_ray.output.masks import (
    LabelMap,
    area,
    bbox_xywh,
    decode_png,
    encode_rle,
)
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store import Store
from salip_ray.sources.locations import join

Verdict = Literal["corrected", "accepted", "rejected"]
#: Columns of a mask that only the models know.
_MODEL_FIGURES = ("clip_score", "clip_margin", "predicted_iou", "stability_score", "agreement")


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's verdict on the labels of one image.

    Attributes:
        verdict: what the person decided.
        classes: ids of the classes that the review showed; None for all.
        mask: file name of the corrected label map.
        values: the values in that map; None if they were not recorded.
        reason: why the label was corrected or rejected, if the person gave a reason.
    """

    verdict: Verdict
    classes: tuple[int, ...] | None = None
    mask: str = ""
    values: tuple[int, ...] | None = None
    reason: str = ""

    def covers(self, class_id: int) -> bool:
        """Return True if the review showed the class."""
        return self.classes is None or class_id in self.classes

    def supersedes(self, earlier: Decision) -> bool:
        """Return True if this decision covers every class that ``earlier`` covers."""
        if earlier.classes is None:
            return self.classes is None
        return all(self.covers(class_id) for class_id in earlier.classes)


@dataclass(frozen=True, slots=True)
class Imported:
    """How many images of a review were corrected, accepted, rejected, and left undecided.

    An image counts once: as corrected if any of its classes was, else as rejected if any was.
    """

    corrected: int
    accepted: int
    rejected: int
    undecided: int


@dataclass(frozen=True)
class Reviews:
    """The decisions about an output, by image id; those of one image with the oldest first."""

    output: LabelOutput
    decisions: Mapping[str, tuple[Decision, ...]]

    @classmethod
    def of(cls, output: LabelOutput) -> Reviews:
        """Read the decisions about an output; most outputs have none.

        Raises:
            OutputError: the file is not readable.
        """
        data = output.read(DECISIONS)
        if data is None:
            return cls(output, {})
        try:
            by_image = json.loads(data)["decisions"]
            return cls(output, {name: _read(name, item) for name, item in by_image.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OutputError(
                f"{join(output.uri, DECISIONS)} is damaged: restore it from a copy, or delete it "
                "and import the reviews again"
            ) from None

    def save(
        self,
        store: Store,
        decisions: Mapping[str, Sequence[Decision]],
        label_maps: Mapping[str, bytes],
    ) -> None:
        """Add decisions, which supersede earlier ones.

        Args:
            store: the output.
            decisions: by image id; those of one image cover different classes.
            label_maps: PNGs of corrected label maps, by image id.

        Raises:
            OutputError: the output cannot be written.
        """
        # Named by content, so that a map that an earlier decision needs is never overwritten.
        files = {
            image_id: f"{image_id}-{hashlib.sha256(png).hexdigest()[:16]}.png"
            for image_id, png in label_maps.items()
        }
        merged = dict(self.decisions)
        for image_id, of_image in decisions.items():
            for decision in of_image:
                earlier = [old for old in merged.get(image_id, ()) if not decision.supersedes(old)]
                mask = files[image_id] if decision.verdict == "corrected" else ""
                merged[image_id] = (*earlier, replace(decision, mask=mask))
        for image_id, png in label_maps.items():
            store.write(f"{REVIEW_MASKS}/{files[image_id]}", png)
        # Written last, so that a decision never names a map that does not exist.
        content = {
            "decisions": {
                image_id: [_as_json(decision) for decision in of_image]
                for image_id, of_image in sorted(merged.items())
            }
        }
        store.write(DECISIONS, json.dumps(content, indent=1).encode())

    def standing(self, image_id: str, class_ids: Collection[int]) -> dict[int, Decision]:
        """Return the decision that counts for each class; classes without one are left out.

        Raises:
            OutputError: a corrected label map is missing or unreadable.
        """
        standing = {}
        for decision in self.decisions.get(image_id, ()):
            if decision.verdict == "corrected" and decision.values is None:
                values = tuple(np.unique(self._label_map(decision)).tolist())
                decision = replace(decision, values=values)
            standing.update({i: decision for i in class_ids if decision.covers(i)})
        return standing

    def drawn(self, standing: Mapping[int, Decision], ignore_index: int) -> LabelMap | None:
        """Return the corrections of an image [H, W], or None if there are none.

        Pixels hold class ids, ``ignore_index``, or 0 for neither.

        Args:
            standing: the decisions on the image; only classes that were corrected are drawn.
            ignore_index: the value of pixels that training must ignore.

        Raises:
            OutputError: a corrected label map is missing or unreadable.
        """
        drawn: LabelMap | None = None
        for decision in dict.fromkeys(standing.values()):
            if decision.verdict != "corrected":
                continue
            corrected = self._label_map(decision)
            classes = [class_id for class_id, counts in standing.items() if counts == decision]
            counted = np.isin(corrected, [*classes, ignore_index])
            drawn = np.zeros_like(corrected) if drawn is None else drawn
            drawn[counted] = corrected[counted]
        return drawn

    def _label_map(self, decision: Decision) -> LabelMap:
        name = f"{REVIEW_MASKS}/{decision.mask}"
        data = self.output.read(name)
        try:
            return decode_png(data or b"")
        except ValueError:
            raise OutputError(
                f"{join(self.output.uri, name)} is missing or not a label map: "
                "import the review again"
            ) from None


def drawn_cells(drawn: LabelMap, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return mask cells (:data:`salip_ray.schema.MASK_TYPE`) of the classes in a drawn map [H, W].

    The instances of a class are the components of what was drawn.

    Args:
        drawn: class ids.
        ids: class ids by label.
    """
    cells = []
    for label, class_id in ids.items():
        mask = drawn == class_id
        rle = encode_rle(mask)
        if area(rle):
            figures = dict.fromkeys(_MODEL_FIGURES, math.nan)
            shape = {"rle": rle, "bbox": bbox_xywh(rle), "area": area(rle), "proposed": None}
            cells.append(
                {
                    "method": "cascade",
                    "label": label,
                    "class_id": class_id,
                    **figures,
                    **shape,
                    "instances": pack_components(mask),
                }
            )
    return cells


def _read(image_id: str, item: Any) -> tuple[Decision, ...]:
    if isinstance(item, dict):  # the format of a time when a review showed all classes
        mask = f"{image_id}.png" if item["verdict"] == "corrected" else ""
        return (Decision(item["verdict"], mask=mask),)
    return tuple(
        Decision(
            one["verdict"],
            _ids(one.get("classes")),
            one.get("mask", ""),
            _ids(one.get("values")),
            one.get("reason", ""),
        )
        for one in item
    )


def _ids(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


def _as_json(decision: Decision) -> dict[str, Any]:
    return {name: value for name, value in asdict(decision).items() if value not in (None, "")}
