"""DICOM series: which files of one slice each make a volume, and in which order.

Slices belong together if series, size, pixel spacing and orientation agree within a tolerance.
Their order follows from ImagePositionPatient along the common normal, never from file names. If
positions repeat, the series holds several time points, echoes or the like: each becomes a volume.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Attributes that tell slices at one position apart, the most reliable first.
MARKS = (
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "FrameReferenceTime",
    "AcquisitionTime",
    "ContentTime",
    "ImageType",
)
#: Attributes by whose order the slices at one position are the first, second, ... time point.
_ORDERS = ("TriggerTime", "FrameReferenceTime", "AcquisitionTime", "ContentTime", "InstanceNumber")
_TIME_POINT = "TemporalPositionIdentifier"
_UNKNOWN = "repeated positions that no attribute tells apart"
_COSINE = 2e-3  # by which direction cosines of one orientation may differ
_SPACING = 1e-3  # share by which pixel spacings may differ
_SAME = (1e-3, 1e-2)  # mm: positions closer than this are one; less for very thin slices
_GAP = 1.5  # a step this much wider than the usual one lacks a slice

Geometries = Mapping[str, "SliceGeometry"]  #: by the name of the file


@dataclass(frozen=True)
class SliceGeometry:
    """Where one slice lies, and what it is a slice of.

    Attributes:
        series: SeriesInstanceUID.
        orientation: ImageOrientationPatient, six direction cosines.
        position: ImagePositionPatient in mm.
        size: rows and columns.
        number: InstanceNumber.
        spacing: PixelSpacing in mm, from row to row and from column to column.
        instance: SOPInstanceUID.
        marks: values of :data:`MARKS` that the file has, by keyword.
    """

    series: str
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    size: tuple[int, int]
    number: int = 0
    spacing: tuple[float, float] | None = None
    instance: str = ""
    marks: tuple[tuple[str, str], ...] = ()

    def mark(self, keyword: str) -> str:
        """Return the value of an attribute of :data:`MARKS`, or an empty string."""
        return dict(self.marks).get(keyword, "")

    def difference(self, other: SliceGeometry) -> str:
        """Return the attribute that keeps two slices out of one volume, or an empty string."""
        if self.size != other.size:
            return "Rows or Columns"
        if not _close_spacing(self.spacing, other.spacing):
            return "PixelSpacing"
        pairs = zip(self.orientation, other.orientation, strict=True)
        if any(abs(ours - theirs) > _COSINE for ours, theirs in pairs):
            return "ImageOrientationPatient"
        return ""


@dataclass(frozen=True)
class Volume:
    """The files of a volume, in order of position.

    Attributes:
        series: the SeriesInstanceUID.
        files: their names.
        duplicates: names of further files at these positions; they are not part of the volume.
        gaps: how many steps are wider than the usual one.
        split_by: attributes that set it apart from other slices of its series.
    """

    series: str
    files: tuple[str, ...]
    duplicates: tuple[str, ...] = ()
    gaps: int = 0
    split_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Describe duplicates and gaps; an empty string if there are none."""
        counts = [(len(self.duplicates), "duplicate position"), (self.gaps, "gap")]
        return " and ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)


def series_of(volume: str) -> str:
    """Return the series part of a volume's name, the same for all volumes of one series.

    The volumes of a series that was split are named ``SERIES-XXXXXXXX``. Train and validation sets
    must be split by this key: volumes of one series show one patient.
    """
    return volume.partition("-")[0]


def group_series(geometries: Geometries) -> list[Volume]:
    """Return the volumes that files form; a slice that matches no other is a volume of one.

    Args:
        geometries: by the name of the file.
    """
    by_series: dict[str, list[str]] = defaultdict(list)
    for name in sorted(geometries):
        by_series[geometries[name].series].append(name)
    return [volume for names in by_series.values() for volume in _volumes(names, geometries)]


def common_depths(geometries: Sequence[SliceGeometry]) -> npt.NDArray[np.float64]:
    """Return the position of each slice along their mean normal, in mm.

    One normal for all: far from the origin, jitter of the cosines would move the slices.
    """
    orientations = np.array([geometry.orientation for geometry in geometries])
    normal = np.cross(orientations[:, :3], orientations[:, 3:]).mean(axis=0)
    length = float(np.linalg.norm(normal))
    positions = np.array([geometry.position for geometry in geometries])
    return np.asarray(positions @ (normal / length if length else normal))


def usual_step(depths: npt.NDArray[np.float64]) -> float:
    """Return the most common step from slice to slice; of two equally common, the smaller."""
    return float(np.quantile(np.diff(depths), 0.5, method="lower"))


def _close_spacing(ours: tuple[float, float] | None, theirs: tuple[float, float] | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return bool(np.allclose(ours, theirs, rtol=_SPACING, atol=0))


def _volumes(names: Sequence[str], geometries: Geometries) -> Iterator[Volume]:
    """Yield the volumes of one series."""
    unique, copies = _without_copies(names, geometries)
    for cluster, reasons in _clusters(unique, geometries):
        for stack in _separate(cluster, geometries, reasons):
            yield _ordered(stack, copies, geometries)


def _without_copies(
    names: Sequence[str], geometries: Geometries
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the first file of each object, and by its name the other copies of it."""
    first: dict[tuple[object, ...], str] = {}
    copies: dict[str, list[str]] = {}
    for name in names:
        geometry = geometries[name]
        # Some software gives all slices one UID, so a copy must also lie at the same position.
        key = (geometry.instance or name, geometry.position, geometry.marks)
        copies.setdefault(first.setdefault(key, name), []).append(name)
    return list(copies), {name: same[1:] for name, same in copies.items()}


def _clusters(
    names: Sequence[str], geometries: Geometries
) -> list[tuple[list[str], tuple[str, ...]]]:
    """Return slices of one size, spacing and orientation, with what sets them apart."""
    clusters: list[list[str]] = []
    reasons: set[str] = set()
    for name in names:
        for cluster in clusters:
            reason = geometries[name].difference(geometries[cluster[0]])
            if not reason:
                cluster.append(name)
                break
            reasons.add(reason)
        else:
            clusters.append([name])
    split_by = tuple(sorted(reasons)) if len(clusters) > 1 else ()
    return [(cluster, split_by) for cluster in clusters]


@dataclass(frozen=True)
class _Slices:
    """Slices of one grid by position; ``split_by`` as in :class:`Volume`."""

    positions: tuple[tuple[str, ...], ...]
    split_by: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [name for position in self.positions for name in position]

    @property
    def repeats(self) -> int:
        """How many slices lie at one position, at most."""
        return max(map(len, self.positions))


def _slices(names: Sequence[str], geometries: Geometries, split_by: tuple[str, ...]) -> _Slices:
    depths = common_depths([geometries[name] for name in names])
    order = np.argsort(depths, kind="stable")
    between = float(depths.max() - depths.min()) / max(1, len(names) - 1)
    tolerance = min(max(0.1 * between, _SAME[0]), _SAME[1])
    positions: list[list[str]] = []
    start = -np.inf
    for index in order:
        if depths[index] - start >= tolerance:
            positions.append([])
            start = float(depths[index])
        positions[-1].append(names[index])
    return _Slices(tuple(map(tuple, positions)), split_by)


def _separate(
    names: Sequence[str], geometries: Geometries, split_by: tuple[str, ...]
) -> Iterator[_Slices]:
    """Yield slices without repeated positions, as far as an attribute tells them apart."""
    slices = _slices(names, geometries, split_by)
    values: dict[str, list[str]]
    for keyword, value_of in _marks(geometries):
        values = defaultdict(list)
        for name in names:
            values[value_of(name)].append(name)
        # Time points are told apart even if they share no position, but not slice numbers.
        most = len(names) - 1 if keyword == _TIME_POINT else slices.repeats
        if 1 < len(values) <= most and _helps(values, geometries, slices, keyword):
            for part in values.values():
                yield from _separate(part, geometries, (*split_by, keyword))
            return
    if slices.repeats == 1 or len({len(position) for position in slices.positions}) > 1:
        yield slices
        return
    for keyword in _ORDERS:
        if ranked := _by_rank(slices, geometries, keyword):
            yield from (_slices(part, geometries, (*split_by, keyword)) for part in ranked)
            return
    # Any choice would mix time points: each slice is alone.
    reasons = (*split_by, _UNKNOWN)
    yield from (_slices([name], geometries, reasons) for name in slices.names)


def _marks(geometries: Geometries) -> Iterator[tuple[str, Callable[[str], str]]]:
    """Yield keywords, and the value of a file for each."""

    def of(keyword: str) -> Callable[[str], str]:
        return lambda name: geometries[name].mark(keyword)

    yield _TIME_POINT, of(_TIME_POINT)
    yield "ImagePositionPatient", lambda name: _in_plane(geometries[name])
    yield from ((keyword, of(keyword)) for keyword in MARKS[1:])


def _in_plane(geometry: SliceGeometry) -> str:
    """Return the position within the plane to 0.1 mm: stations may lie side by side."""
    row, column = geometry.orientation[:3], geometry.orientation[3:]
    return " ".join(f"{np.dot(side, geometry.position) + 0.0:.1f}" for side in (row, column))


def _helps(
    values: Mapping[str, Sequence[str]], geometries: Geometries, slices: _Slices, keyword: str
) -> bool:
    """Return True if splitting by these values leaves fewer slices at one position."""
    if keyword == _TIME_POINT:
        return "" not in values
    return all(_slices(part, geometries, ()).repeats < slices.repeats for part in values.values())


def _by_rank(slices: _Slices, geometries: Geometries, keyword: str) -> list[list[str]]:
    """Return the first, second, ... slices of all positions; nothing if two slices are equal."""
    parts: list[list[str]] = [[] for _ in range(slices.repeats)]
    for position in slices.positions:
        keys = {name: _rank_key(geometries[name], keyword) for name in position}
        if None in keys.values() or len(set(keys.values())) < len(keys):
            return []
        for part, name in zip(parts, sorted(keys, key=lambda n: keys[n] or 0.0), strict=True):
            part.append(name)
    return parts


def _rank_key(geometry: SliceGeometry, keyword: str) -> float | None:
    if keyword == "InstanceNumber":
        return float(geometry.number)
    try:
        return float(geometry.mark(keyword))
    except ValueError:
        return None


def _ordered(
    slices: _Slices, copies: Mapping[str, Iterable[str]], geometries: Geometries
) -> Volume:
    """Return one slice of each position, and the others as duplicates."""

    def earliest(name: str) -> tuple[float, int, str]:
        geometry = geometries[name]
        return _rank_key(geometry, "AcquisitionTime") or 0.0, geometry.number, name

    files = [min(position, key=earliest) for position in slices.positions]
    again = set(slices.names) - set(files)
    duplicates = sorted(again | {copy for name in slices.names for copy in copies[name]})
    gaps = 0
    if len(files) > 1:
        depths = common_depths([geometries[name] for name in files])
        gaps = int((np.diff(depths) > _GAP * usual_step(depths)).sum())
    series = geometries[files[0]].series
    return Volume(series, tuple(files), tuple(duplicates), gaps, slices.split_by)
