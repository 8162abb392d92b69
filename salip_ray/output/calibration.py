"""Confidences that were fitted again on a few labelled images: ``calibration.json``.

The shards of an output never change. :class:`~salip_ray.output.reader.LabelOutput` replaces the
confidence of a mask as it reads the row.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.cascade.confidence import Calibration
from salip_ray.errors import OutputError
from salip_ray.output.layout import CALIBRATION
from salip_ray.output.store import Store

#: Figures of a mask that a fit may use, the most useful first.
FIGURES = ("confidence", "agreement", "predicted_iou", "stability_score")
_NEEDED = ("method", "label", *FIGURES)
_LEAF = "masks.list.element."


@dataclass(frozen=True)
class ClassFit:
    """The fit of one class.

    Attributes:
        figures: the figures of a mask that it takes, of :data:`FIGURES`.
        model: maps them to the expected Dice.
        quality: how good it is, as JSON-ready data.
    """

    figures: tuple[str, ...]
    model: Calibration
    quality: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, figures: Mapping[str, float | None]) -> float:
        """Return the expected Dice of a mask; NaN if its first figure is unknown."""
        known = (figures[name] for name in self.figures)
        values = [math.nan if value is None else value for value in known]
        return math.nan if math.isnan(values[0]) else self.model(*values)


@dataclass(frozen=True)
class Calibrations:
    """The content of ``calibration.json``.

    Attributes:
        references: public URI of the reference masks.
        images: ids of the images that were fitted on, which no evaluation scores.
        classes: the fits, by class label.
    """

    references: str
    images: frozenset[str]
    classes: Mapping[str, ClassFit]

    @classmethod
    def of(cls, store: Store) -> Calibrations | None:
        """Return those of an output, or None if it was not calibrated.

        Raises:
            OutputError: the file is damaged.
        """
        data = store.read(CALIBRATION)
        if data is None:
            return None
        try:
            content = json.loads(data)
            fits = {label: _class_fit(item) for label, item in content["classes"].items()}
            images = content["images"]
            if not isinstance(images, list):
                raise TypeError(images)
            return cls(str(content["references"]), frozenset(map(str, images)), fits)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise OutputError(
                f"{store.path_of(CALIBRATION)} is damaged: delete it and calibrate again"
            ) from None

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        content = {
            "references": self.references,
            "images": sorted(self.images),
            "classes": {label: asdict(fit) for label, fit in self.classes.items()},
        }
        return (json.dumps(content, indent=1) + "\n").encode()

    def columns(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        """Return columns to read, with those that a confidence is made of."""
        if columns is None or f"{_LEAF}confidence" not in columns:
            return columns
        return list(dict.fromkeys([*columns, *(f"{_LEAF}{name}" for name in _NEEDED)]))

    def apply(self, rows: pa.Table) -> pa.Table:
        """Return rows with calibrated confidences, if they have any."""
        at = rows.schema.get_field_index("masks")
        if at < 0 or not {*_NEEDED} <= {f.name for f in rows.schema.field(at).type.value_type}:
            return rows
        lists = [self._calibrated(chunk) for chunk in rows.column(at).chunks]
        return rows.set_column(
            at, rows.schema.field(at), pa.chunked_array(lists, rows.column(at).type)
        )

    def _calibrated(self, lists: pa.ListArray) -> pa.ListArray:
        cells = lists.flatten()
        names = [item.name for item in cells.type]
        fields = dict(zip(names, cells.flatten(), strict=True))
        old = {name: fields[name].to_pylist() for name in _NEEDED}
        new = []
        for number, (method, label) in enumerate(zip(old["method"], old["label"], strict=True)):
            fit = self.classes.get(label) if method == "cascade" else None
            figures = {name: old[name][number] for name in FIGURES}
            new.append(figures["confidence"] if fit is None else fit(figures))
        fields["confidence"] = pa.array(new, fields["confidence"].type)
        struct = pa.StructArray.from_arrays(
            [fields[name] for name in names], fields=list(cells.type)
        )
        lengths = pc.list_value_length(lists)
        ends = np.cumsum(lengths.fill_null(0).to_numpy(zero_copy_only=False))
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        missing = np.append(lists.is_null().to_numpy(zero_copy_only=False), False)
        return pa.ListArray.from_arrays(pa.array(offsets, mask=missing), struct, type=lists.type)


def _class_fit(item: Mapping[str, Any]) -> ClassFit:
    """Return the fit in an item of the file.

    Raises:
        ValueError: its figures are unknown, or its model is not of them.
    """
    figures, model = tuple(item["figures"]), _model(item["model"])
    numbers = (model.weights, model.centre, model.scale, model.low, model.high)
    if not figures or not {*figures} <= {*FIGURES}:
        raise ValueError(figures)
    if any(len(values) != len(figures) for values in numbers) or 0 in model.scale:
        raise ValueError(numbers)
    if not all(map(math.isfinite, (model.intercept, *itertools.chain(*numbers)))):
        raise ValueError(numbers)
    return ClassFit(figures, model, item.get("quality", {}))


def _model(item: Mapping[str, Any]) -> Calibration:
    fields = {name: tuple(item[name]) for name in ("weights", "centre", "scale", "low", "high")}
    return Calibration(intercept=item["intercept"], **fields)
