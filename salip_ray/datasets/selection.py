"""Which images of an output become training data: decisions of people, then limits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from salip_ray.datasets.images import common_folder, folder_of
from salip_ray.datasets.index import ClassFigures, Entry, read_entries
from salip_ray.datasets.reviews import Decision, Reviews
from salip_ray.errors import ConfigError
from salip_ray.output.reader import LabelOutput
from salip_ray.wording import counted

Standing = Mapping[int, Decision]  #: the decision that counts, by class id


@dataclass(frozen=True, kw_only=True)
class LabelLimits:
    """What a label must reach to be used, and whether images without one are used.

    An image is left out if any of its labels is below a limit: neither the label nor its absence
    can be trusted. Labels that a person accepted or corrected pass. A limit of 0 is no limit; an
    unknown figure is below every other limit.

    Attributes:
        min_confidence: least confidence of a label, 0 to 1.
        min_presence: least presence of a class in the whole image, 0 to 1.
        min_area: least area of a mask: a share of the image up to 1, else pixels.
        negatives: use images without a label, as examples of background only.
        reviewed: use only images of which people accepted or corrected every class.

    Raises:
        ConfigError: a limit is out of range.
    """

    min_confidence: float = 0.0
    min_presence: float = 0.0
    min_area: float = 0.0
    negatives: bool = False
    reviewed: bool = False

    def __post_init__(self) -> None:
        for name in ("min_confidence", "min_presence"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be within 0 and 1, found {getattr(self, name)}")
        if not self.min_area >= 0:
            raise ConfigError(f"min_area must not be negative, found {self.min_area}")

    def failed_by(self, figures: ClassFigures, pixels: int) -> str | None:
        """Return the first limit that a label misses, or None if it passes.

        Args:
            figures: those of the label.
            pixels: of its image.
        """
        if figures.reviewed:
            return None
        least_area = self.min_area * pixels if self.min_area <= 1 else self.min_area
        for name, value, least in (
            ("confidence", figures.confidence, self.min_confidence),
            ("presence", figures.presence, self.min_presence),
            ("area", figures.area, least_area),
        ):
            if least and not value >= least:  # so that NaN fails
                return name
        return None


#: Why an image is left out -> how a message puts it.
REASONS = {
    "error": "without labels because of an error (salip-ray errors lists the reasons)",
    "empty": "without a label (exports take those with --negatives)",
    "rejected": "rejected by a reviewer",
    "unreviewed": "that no reviewer has accepted or corrected",
    "confidence": "with a label whose confidence is below the limit, or unknown",
    "presence": "with a label whose presence is below the limit, or unknown",
    "area": "with a label below the area limit",
    "unreadable": "that cannot be read (unreadable.csv in the export lists the reasons)",
}


@dataclass(frozen=True)
class UsableImages:
    """The images to use, and how many were left out for which of :data:`REASONS`.

    ``folder`` is the deepest folder that holds all images of the output, used or not.
    """

    entries: tuple[Entry, ...]
    left_out: Mapping[str, int]
    folder: str


def select(
    output: LabelOutput, reviews: Reviews, class_ids: Mapping[str, int], limits: LabelLimits
) -> UsableImages:
    """Apply the decisions of people and then the limits to the images of an output.

    Args:
        output: the output.
        reviews: its decisions.
        class_ids: ids of the wanted classes, by label.
        limits: what a label must reach.

    Raises:
        OutputError: the run hid names, and the manifest is missing; or a corrected label map is
            missing.
    """
    left_out: Counter[str] = Counter()
    folders: set[str] = set()
    entries = []
    for entry in read_entries(output, class_ids):
        folders.add(folder_of(entry.picture.uri))
        if entry.status == "error":
            left_out["error"] += 1
            continue
        standing = reviews.standing(entry.image_id, class_ids.values())
        reviewed = apply_decisions(entry, standing, class_ids)
        if reason := _left_out(reviewed, limits) or _unreviewed(standing, class_ids, limits):
            left_out[reason] += 1
        elif reviewed is not None:
            entries.append(reviewed)
    return UsableImages(tuple(entries), dict(left_out), common_folder(folders))


def _left_out(entry: Entry | None, limits: LabelLimits) -> str | None:
    if entry is None:
        return "rejected"
    if not entry.figures:
        return None if limits.negatives or entry.confirmed_empty else "empty"
    pixels = entry.height * entry.width
    failures = (limits.failed_by(figures, pixels) for figures in entry.figures.values())
    return next((failure for failure in failures if failure), None)


def _unreviewed(standing: Standing, ids: Mapping[str, int], limits: LabelLimits) -> str | None:
    if not limits.reviewed:
        return None
    verdicts = {standing[i].verdict if i in standing else "none" for i in ids.values()}
    if "none" in verdicts:
        return "unreviewed"
    return "rejected" if "rejected" in verdicts else None


def apply_decisions(entry: Entry, standing: Standing, ids: Mapping[str, int]) -> Entry | None:
    """Return an entry as people left it, or None if they rejected all of its labels.

    An image whose labels were all erased by hand stays, confirmed to be empty.

    Args:
        entry: the labels of the cascade.
        standing: the decisions that count, by class id.
        ids: ids of the wanted classes, by label.
    """
    if not standing:
        return entry
    figures: dict[str, ClassFigures] = {}
    for label, class_id in ids.items():
        decision, own = standing.get(class_id), entry.figures.get(label)
        if decision is None:
            if own is not None:
                figures[label] = own
        elif decision.verdict == "corrected":
            if class_id in (decision.values or ()):
                figures[label] = ClassFigures(1.0, 1.0, math.nan, reviewed=True)
        elif decision.verdict == "accepted" and own is not None:
            figures[label] = replace(own, confidence=1.0, reviewed=True)
    if figures:
        return replace(entry, figures=figures)
    # Without a label of the cascade, accepting confirms that nothing is there.
    decisions = [standing.get(ids[label]) for label in entry.figures or ids]
    confirming = {"corrected"} if entry.figures else {"corrected", "accepted"}
    if all(decision is not None and decision.verdict in confirming for decision in decisions):
        return replace(entry, figures={}, confirmed_empty=True)
    rejected = any(one is not None and one.verdict == "rejected" for one in decisions)
    return None if entry.figures or rejected else entry


def describe_left_out(left_out: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each reason why images were left out."""
    for reason, text in REASONS.items():
        if left_out.get(reason):
            yield f"left out {counted(left_out[reason], 'image')} {text}"
