"""What all image exports share: the split, file names, and the files that describe an export."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.selection import LabelLimits
from salip_ray.datasets.splits import GroupBy
from salip_ray.sources.decode import ORDINARY_SUFFIXES
from salip_ray.sources.formats.names import split_member, stem, suffix
from salip_ray.sources.privacy import is_pseudonym

PROVENANCE = "provenance.csv"
_STEM_LETTERS = 64  # with slice number, id and suffix, names stay below tar's 100 letters
_ID_DIGITS = 16  # 64 bits: too many for two of a million images to clash
_COLUMNS = ("name", "part", "image_id", "uri", "confidence")


@dataclass(frozen=True, slots=True)
class Split:
    """How an export divides its images into ``train`` and ``val``.

    Attributes:
        val: share of the images in ``val``; 0 for no split.
        seed: the same seed gives the same split.
        group_by: what stays together; see :func:`salip_ray.datasets.splits.group_key`.
    """

    val: float = 0.0
    seed: int = 0
    group_by: GroupBy = "image"

    def parts(self, labels: PseudoLabels) -> dict[str, list[int]]:
        """Return the indices of ``train`` and, if there is a split, ``val``."""
        if not self.val:
            return {"train": list(range(len(labels)))}
        shares = {"train": 1 - self.val, "val": self.val}
        return labels.split_indices(shares, seed=self.seed, group_by=self.group_by)


NO_SPLIT = Split()


def describe(
    format_name: str, labels: PseudoLabels, split: Split, **options: Any
) -> dict[str, Any]:
    """Return what an export is made of, for ``export.json``."""
    group_by = split.group_by if isinstance(split.group_by, str) else repr(split.group_by)
    return {
        "format": format_name,
        "labels": labels.output.uri,
        "classes": labels.class_ids,
        "images": len(labels),
        **_describe_limits(labels.limits),
        "ignore_disagreement": labels.reader.ignore_disagreement,
        "val": split.val,
        "seed": split.seed,
        "group_by": group_by,
        "decisions": _describe_decisions(labels),
        **options,
        "fingerprint": labels.output.run["fingerprint"],
    }


def _describe_limits(limits: LabelLimits) -> dict[str, Any]:
    # Without the latest limit unless it is set, so that older exports can be resumed.
    return {name: value for name, value in asdict(limits).items() if value or name != "reviewed"}


def _describe_decisions(labels: PseudoLabels) -> str:
    """Return a line that changes with the decisions of reviewers."""
    reviews, ids = labels.reader.reviews, labels.class_ids.values()
    decided = {
        image_id: {i: asdict(decision) for i, decision in standing.items()}
        for image_id in sorted(reviews.decisions)
        if (standing := reviews.standing(image_id, ids))
    }
    return f"on {len(decided)} images, {digest(decided)}"


def digest(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of a JSON-ready value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def case_name(entry: Entry) -> str:
    """Return a file name without a suffix: that of the image, made unique by its id.

    If the run hid names, a part of the volume's id replaces it. Slices have their number.
    """
    source = (entry.volume or "")[:12] if is_pseudonym(entry.uri) else stem(entry.uri)
    name = re.sub(r"[^A-Za-z0-9-]+", "-", source).strip("-")[:_STEM_LETTERS] or "image"
    number = "" if entry.slice is None else f"-{entry.slice:04d}"
    return f"{name}{number}-{entry.image_id[:_ID_DIGITS]}"


def is_plain_file(entry: Entry) -> bool:
    """Return True if trainers can open the image file, and its name may be shown."""
    if is_pseudonym(entry.uri) or split_member(entry.uri)[1]:
        return False
    return suffix(entry.uri) in ORDINARY_SUFFIXES and entry.picture.index is None


def cases(labels: PseudoLabels, split: Split) -> Iterator[tuple[str, str, Entry]]:
    """Yield the part, the file name and the entry of every image, in order."""
    parts = split.parts(labels)
    part_of = {index: part for part, indices in parts.items() for index in indices}
    for index, entry in enumerate(labels.entries):
        yield part_of[index], case_name(entry), entry


def provenance(
    labels: PseudoLabels,
    split: Split,
    without: Collection[str] = (),
    *,
    names: Sequence[str] = (),
) -> str:
    """Return a CSV that leads from each exported name to its image and row.

    Args:
        labels: what is exported.
        split: of the export.
        without: ids of images that were left out.
        names: the exported name of each image; by default :func:`case_name`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for index, (part, name, entry) in enumerate(cases(labels, split)):
        if entry.image_id in without:
            continue
        name = names[index] if names else name
        confidence = "" if math.isnan(entry.confidence) else f"{entry.confidence:.4f}"
        writer.writerow((name, part, entry.image_id, entry.uri, confidence))
    return text.getvalue()


def counts(labels: PseudoLabels) -> dict[str, int]:
    """Return how many images are exported, and left out for which reason, for ``export.json``."""
    left_out = {f"images_left_out_{reason}": n for reason, n in labels.left_out.items()}
    return {"images_written": len(labels) - labels.left_out.get("unreadable", 0), **left_out}


def consecutive(class_ids: Mapping[str, int]) -> dict[int, int]:
    """Return class id -> 1, 2, ..., for formats that allow no gaps."""
    return {old: new for new, old in enumerate(sorted(class_ids.values()), start=1)}


def free_names(labels: Iterable[str], reserved: frozenset[str]) -> dict[str, str]:
    """Return label -> the name to write: ``LABEL_class`` if the format reserves the label.

    Args:
        labels: class labels.
        reserved: names in lower case; labels are compared without regard to case.
    """
    labels = list(labels)
    taken = {label.casefold() for label in labels} | reserved
    names: dict[str, str] = {}
    for label in labels:
        names[label] = label
        if label.strip().casefold() in reserved:
            suffixes = itertools.chain([""], itertools.count(2))
            choices = (f"{label.strip()}_class{suffix}" for suffix in suffixes)
            names[label] = next(name for name in choices if name.casefold() not in taken)
            taken.add(names[label].casefold())
    return names
