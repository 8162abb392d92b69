"""What all exports have in common: names, parts, provenance, pixels as PNG."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.splits import GroupBy, split
from salip_ray.schema import Image
from salip_ray.sources.decode import stem, suffix
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.privacy import is_pseudonym

PROVENANCE = "provenance.csv"
_OWN_LETTERS = 64  # of a file's own name: with place, id and suffix it stays below tar's 100
_ID_DIGITS = 16  # of the image's id: 64 bits, too many for two of a million images to clash
_PLAIN = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})
_COLUMNS = ("name", "part", "image_id", "uri", "confidence")


@dataclass(frozen=True, slots=True)
class Parts:
    """How an export is split: ``val`` is a share (0: no split), the rest as in ``split``."""

    val: float = 0.0
    seed: int = 0
    group_by: GroupBy = "image"

    def of(self, labels: PseudoLabels) -> dict[str, list[int]]:
        """Indices of ``train`` and, where ``val`` is above 0, ``val``."""
        if not self.val:
            return {"train": list(range(len(labels)))}
        names = labels.split_names(self.group_by)
        shares = {"train": 1 - self.val, "val": self.val}
        return split(names, shares, seed=self.seed, group_by=self.group_by)


def about(format_name: str, labels: PseudoLabels, parts: Parts, **options: Any) -> dict[str, Any]:
    """What an export is made of, for ``export.json``."""
    fingerprint = labels.labels.run["fingerprint"]
    return {
        "format": format_name,
        "labels": labels.labels.uri,
        "classes": labels.class_ids,
        "images": len(labels),
        "min_confidence": labels.min_confidence,
        "ignore_disagreement": labels.ignore_disagreement,
        "val": parts.val,
        "seed": parts.seed,
        "group_by": parts.group_by if isinstance(parts.group_by, str) else repr(parts.group_by),
        "decisions": _decisions(labels),
        **options,
        "fingerprint": fingerprint,
    }


def _decisions(labels: PseudoLabels) -> str:
    """What people decided on these labels, in a line that another state does not have."""
    decided = {
        image_id: {class_id: asdict(decision) for class_id, decision in standing.items()}
        for image_id, standing in labels.decided.items()
        if standing
    }
    return f"on {len(decided)} images, {digest(decided)}"


def digest(value: Any) -> str:
    """16 hex digits that stand for a JSON-ready value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def case_name(entry: Entry) -> str:
    """A file name without a suffix: the image's own, made unique by its id.

    Where the run hid names the volume's id stands for it; slices have their number.
    """
    own = (entry.volume or "")[:12] if is_pseudonym(entry.uri) else stem(entry.uri)
    name = re.sub(r"[^A-Za-z0-9-]+", "-", own).strip("-")[:_OWN_LETTERS] or "image"
    place = "" if entry.slice is None else f"-{entry.slice:04d}"
    return f"{name}{place}-{entry.image_id[:_ID_DIGITS]}"


def is_plain_file(entry: Entry) -> bool:
    """Whether an image is a file that trainers open as it is, under a name that may be shown."""
    if is_pseudonym(entry.uri) or split_member(entry.uri)[1]:
        return False
    return suffix(entry.uri) in _PLAIN and entry.picture.index is None


def cases(labels: PseudoLabels, parts: Parts) -> Iterator[tuple[str, str, Entry]]:
    """``(part, name, entry)`` of every image, in order."""
    chosen = parts.of(labels)
    part_of = {index: part for part, indices in chosen.items() for index in indices}
    for index, entry in enumerate(labels.entries):
        yield part_of[index], case_name(entry), entry


def provenance(labels: PseudoLabels, parts: Parts) -> str:
    """A CSV that leads each exported name back to its image and row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for part, name, entry in cases(labels, parts):
        writer.writerow((name, part, entry.image_id, entry.uri, f"{entry.confidence:.4f}"))
    return text.getvalue()


def rgb_png(image: Image) -> bytes:
    """RGB pixels as a PNG; a grey PNG where the three channels are the same."""
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
    return png(image[..., 0] if grey else image)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Grey [H, W] or RGB [H, W, 3] pixels as a PNG."""
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", np.ascontiguousarray(ordered))
    assert done, "OpenCV encodes any non-empty image"
    return data.tobytes()


def consecutive(class_ids: Mapping[str, int]) -> dict[int, int]:
    """Class ids of a chosen few as 1, 2, ..., for formats that allow no gaps."""
    return {old: new for new, old in enumerate(sorted(class_ids.values()), start=1)}
