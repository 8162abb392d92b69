"""What people decided about labels, beside the shards that they never change.

OUT/reviews/decisions.json          image id -> what was decided, the oldest first
OUT/reviews/masks/IMAGE-MAP.png     corrected label maps

A decision speaks for the classes that its review showed, and stands until a later one speaks for
them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from salip_ray.datasets.index import Entry
from salip_ray.errors import OutputError
from salip_ray.output.masks import LabelMap, area, bbox_xywh, decode_png, encode_rle
from salip_ray.output.writing import write_whole
from salip_ray.sources.locations import filesystem, join, normalise, public_uri

Verdict = Literal["corrected", "accepted", "rejected"]
_FILE = "reviews/decisions.json"
_MASKS = "reviews/masks"
_FIGURES = ("clip_score", "clip_margin", "predicted_iou", "stability_score", "agreement")


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's verdict on the label of one image.

    Attributes:
        verdict: what was decided.
        classes: ids of the classes that the person saw; None for all.
        mask: the file of a corrected label map.
        values: what a corrected label map holds; None where that was not noted.
    """

    verdict: Verdict
    classes: tuple[int, ...] | None = None
    mask: str = ""
    values: tuple[int, ...] | None = None

    def speaks_for(self, class_id: int) -> bool:
        """Whether the person saw the class."""
        return self.classes is None or class_id in self.classes

    def replaces(self, earlier: Decision) -> bool:
        """Whether nothing is left that an earlier decision on the image speaks for."""
        if earlier.classes is None:
            return self.classes is None
        return all(self.speaks_for(class_id) for class_id in earlier.classes)


@dataclass
class Reviews:
    """The decisions kept in an output, by image id; those on one image with the oldest first."""

    uri: str
    decisions: dict[str, tuple[Decision, ...]]
    _fs: Any = field(repr=False)
    _root: str = field(repr=False)

    @classmethod
    def open(cls, output: str, storage_options: Mapping[str, Any] | None = None) -> Reviews:
        """Read the decisions of an output; most have none.

        Raises:
            OutputError: they cannot be read.
        """
        fs, root = filesystem(normalise(output), storage_options)
        uri = public_uri(output)
        try:
            data = json.loads(fs.cat_file(join(root, _FILE)))
        except FileNotFoundError:
            data = {"decisions": {}}
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise OutputError(f"{join(uri, _FILE)} is not valid JSON") from None
        decisions = {name: _decisions(name, value) for name, value in data["decisions"].items()}
        return cls(uri, decisions, fs, root)

    def save(self, decisions: Mapping[str, Decision], maps: Mapping[str, bytes]) -> None:
        """Add decisions, later ones replacing earlier ones, and the PNGs of corrected label maps.

        Raises:
            OutputError: the output cannot be written.
        """
        merged = dict(self.decisions)
        # Named by their content: what an earlier decision names is never overwritten.
        masks = {
            image_id: f"{image_id}-{hashlib.sha256(png).hexdigest()[:16]}.png"
            for image_id, png in maps.items()
        }
        for image_id, decision in decisions.items():
            earlier = (old for old in merged.get(image_id, ()) if not decision.replaces(old))
            merged[image_id] = (*earlier, replace(decision, mask=masks.get(image_id, "")))
        self.decisions = dict(sorted(merged.items()))
        data = {
            "decisions": {
                name: [_noted(decision) for decision in found]
                for name, found in self.decisions.items()
            }
        }
        try:
            self._fs.makedirs(join(self._root, _MASKS), exist_ok=True)
            for image_id, png in maps.items():
                write_whole(self._fs, join(self._root, _MASKS, masks[image_id]), png)
            # Last: a decision never names a mask that is not there.
            write_whole(self._fs, join(self._root, _FILE), json.dumps(data, indent=1).encode())
        except OSError as error:
            raise OutputError(f"cannot write {join(self.uri, 'reviews')}: {error}") from None

    @property
    def corrected(self) -> frozenset[str]:
        """The ids of images with a label map that a person drew."""
        return frozenset(
            image_id
            for image_id, found in self.decisions.items()
            if any(decision.verdict == "corrected" for decision in found)
        )

    def standing(self, image_id: str, class_ids: Collection[int]) -> dict[int, Decision]:
        """By class id the decision that stands; classes without one are left out.

        Raises:
            OutputError: a corrected label map is missing or unreadable.
        """
        standing = {}
        for decision in self.decisions.get(image_id, ()):
            if decision.verdict == "corrected" and decision.values is None:
                values = tuple(np.unique(self._label_map(decision)).tolist())
                decision = replace(decision, values=values)
            standing.update({i: decision for i in class_ids if decision.speaks_for(i)})
        return standing

    def drawn(self, standing: Mapping[int, Decision], ignore_index: int) -> LabelMap | None:
        """What people drew of an image [H, W]: class ids, ``ignore_index``, and 0 for the rest.

        Args:
            standing: decisions on the image; classes that are not corrected are not drawn.
            ignore_index: the value of pixels where nothing should be learnt.

        Raises:
            OutputError: a corrected label map is missing or unreadable.
        """
        drawn: LabelMap | None = None
        for decision in dict.fromkeys(standing.values()):
            if decision.verdict != "corrected":
                continue
            corrected = self._label_map(decision)
            mine = [class_id for class_id, stands in standing.items() if stands == decision]
            counted = np.isin(corrected, [*mine, ignore_index])
            drawn = np.zeros_like(corrected) if drawn is None else drawn
            drawn[counted] = corrected[counted]
        return drawn

    def _label_map(self, decision: Decision) -> LabelMap:
        try:
            return decode_png(self._fs.cat_file(join(self._root, _MASKS, decision.mask)))
        except (FileNotFoundError, ValueError):
            place = join(self.uri, _MASKS, decision.mask)
            raise OutputError(f"{place} is missing or not a label map: import it again") from None


def heeded(entry: Entry, standing: Mapping[int, Decision], ids: Mapping[str, int]) -> Entry | None:
    """An entry as people left it, or None where no label is left.

    An image from which a person erased all labels stays: that nothing is there is certain.

    Args:
        entry: what the cascade found.
        standing: the decisions on the image, by class id.
        ids: class ids by label, of the classes that matter.
    """
    confidences: dict[str, float] = {}
    for label, class_id in ids.items():
        decision = standing.get(class_id)
        if decision is not None and decision.verdict == "corrected":
            there = class_id in (decision.values or ())
        else:
            rejected = decision is not None and decision.verdict == "rejected"
            there = label in entry.confidences and not rejected
        if there:
            confidences[label] = entry.confidences[label] if decision is None else 1.0
    if not confidences:
        before = [standing.get(ids[label]) for label in entry.confidences]
        erased = bool(before) and all(d is not None and d.verdict == "corrected" for d in before)
        if not erased:
            return None
    return replace(entry, confidences=confidences)


def drawn_cells(drawn: LabelMap, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """Mask cells (:data:`salip_ray.schema.MASK_TYPE`) of the classes in a map [H, W] drawn by hand.

    Args:
        drawn: class ids.
        ids: class ids by label.
    """
    cells = []
    for label, class_id in ids.items():
        rle = encode_rle(drawn == class_id)
        if area(rle):
            figures = dict.fromkeys(_FIGURES, math.nan)
            shape = {"rle": rle, "bbox": bbox_xywh(rle), "area": area(rle), "proposed": None}
            cells.append(
                {"method": "cascade", "label": label, "class_id": class_id, **figures, **shape}
            )
    return cells


def _decisions(image_id: str, noted: Any) -> tuple[Decision, ...]:
    if isinstance(noted, dict):  # as it was written when all classes were reviewed at once
        mask = f"{image_id}.png" if noted["verdict"] == "corrected" else ""
        return (Decision(noted["verdict"], mask=mask),)
    return tuple(
        Decision(
            one["verdict"], _ids(one.get("classes")), one.get("mask", ""), _ids(one.get("values"))
        )
        for one in noted
    )


def _ids(noted: list[int] | None) -> tuple[int, ...] | None:
    return None if noted is None else tuple(noted)


def _noted(decision: Decision) -> dict[str, Any]:
    return {name: value for name, value in asdict(decision).items() if value not in (None, "")}
