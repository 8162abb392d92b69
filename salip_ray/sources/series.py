"""DICOM series: which files of one slice each make a volume, and in which order.

Files belong together where series, orientation and size agree. Their place is that of
ImagePositionPatient along the normal of the slices; names and instance numbers are not trusted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SAME = 1e-2  # mm: positions closer than this are one
_GAP = 1.5  # a step this much wider than the usual one lacks a slice


@dataclass(frozen=True)
class SliceGeometry:
    """Where the one slice of a DICOM file lies.

    ``series`` is the SeriesInstanceUID, ``orientation`` ImageOrientationPatient, ``position``
    ImagePositionPatient, ``size`` the rows and columns, ``spacing`` PixelSpacing.
    """

    series: str
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    size: tuple[int, int]
    number: int = 0
    spacing: tuple[float, float] | None = None

    @property
    def group(self) -> tuple[object, ...]:
        """What the slices of one volume have in common."""
        return self.series, tuple(round(part, 3) + 0.0 for part in self.orientation), self.size

    @property
    def depth(self) -> float:
        """Millimetres along the normal of the slice."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return float(np.dot(normal, self.position))


@dataclass(frozen=True)
class Volume:
    """The files of a volume, in order of position.

    Attributes:
        series: the SeriesInstanceUID.
        files: their names.
        duplicates: names of files at the position of another one; they are not part of it.
        gaps: how many steps are wider than they should be.
    """

    series: str
    files: tuple[str, ...]
    duplicates: tuple[str, ...]
    gaps: int

    def __str__(self) -> str:
        """What is remarkable about it, or nothing."""
        found = [(len(self.duplicates), "duplicate position"), (self.gaps, "gap")]
        return " and ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in found if count)


def group_series(places: Mapping[str, SliceGeometry]) -> list[Volume]:
    """The volumes that files form; a file that is alone is not in any.

    Args:
        places: by the name of the file.
    """
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name in sorted(places):
        groups[places[name].group].append(name)
    volumes = (_volume(names, places) for names in groups.values())
    return [volume for volume in volumes if len(volume.files) > 1]


def usual_step(depths: npt.NDArray[np.float64]) -> float:
    """The step from slice to slice that most have; of two that are as common, the smaller."""
    return float(np.quantile(np.diff(depths), 0.5, method="lower"))


def _volume(names: Iterable[str], places: Mapping[str, SliceGeometry]) -> Volume:
    ordered = sorted(names, key=lambda name: (places[name].depth, places[name].number, name))
    files: list[str] = []
    duplicates: list[str] = []
    for name in ordered:
        again = files and places[name].depth - places[files[-1]].depth < _SAME
        (duplicates if again else files).append(name)
    depths = np.array([places[name].depth for name in files])
    gaps = int((np.diff(depths) > _GAP * usual_step(depths)).sum()) if len(files) > 1 else 0
    return Volume(places[ordered[0]].series, tuple(files), tuple(duplicates), gaps)
