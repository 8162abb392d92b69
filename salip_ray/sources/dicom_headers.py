"""Read the head of a DICOM file: frames, series, and the positions of slices."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import IO, Any

from salip_ray.config import ImageConfig
from salip_ray.sources.formats import dicom_dataset as dicom
from salip_ray.sources.formats.stack import check_frames
from salip_ray.sources.series import MARKS, SliceGeometry

#: By each mark of a series, the keywords that may hold it: plain, and in functional groups.
_MARKS = {
    **{keyword: (keyword,) for keyword in MARKS},
    "TemporalPositionIdentifier": ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    "AcquisitionNumber": ("AcquisitionNumber", "FrameAcquisitionNumber"),
    "EchoTime": ("EchoTime", "EffectiveEchoTime"),
    "AcquisitionTime": ("AcquisitionTime", "FrameAcquisitionDateTime"),
    "ImageType": ("FrameType", "ImageType"),
}
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_TAGS = [
    "NumberOfFrames",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "InstanceNumber",
    "Rows",
    "Columns",
    _SHARED,
    *{keyword for keywords in _MARKS.values() for keyword in keywords},
]


def read(
    file: IO[bytes], config: ImageConfig
) -> tuple[int | None, SliceGeometry | None, str | None]:
    """Return the number of frames if there are several, the position of a slice, and its series.

    Raises:
        ImageError: the file is not DICOM, or has more frames than ``config`` allows.
    """
    with dicom.quiet():
        ds = dicom.read_head(file, _TAGS)
        series = str(ds.get("SeriesInstanceUID") or "") or None
        frames = dicom.frame_count(ds)
        check_frames(frames, config)
        if frames > 1:
            return frames, None, series
        if _SHARED in ds:  # an enhanced object; the groups of one frame are small
            file.seek(0)
            ds = dicom.read_head(file, [*_TAGS, _PER_FRAME])
        return None, _geometry(ds, 0), series


def read_frames(file: IO[bytes]) -> list[SliceGeometry | None]:
    """Return where each frame of a multi-frame object lies; None for a frame without a position."""
    with dicom.quiet():
        ds = dicom.read_head(file)
        return [_geometry(ds, frame) for frame in range(len(ds.get(_PER_FRAME) or ()))]


def _geometry(ds: Any, frame: int) -> SliceGeometry | None:
    """Return the geometry of a frame; None if its data set lacks one or has a corrupt one."""
    items = list(dicom.functional_groups(ds, frame))

    def value(keyword: str) -> Any:
        for item in items:
            if item.get(keyword) not in (None, ""):
                return item[keyword].value
        return ds.get(keyword)

    try:
        orientation = _numbers(value("ImageOrientationPatient"), 6)
        position = _numbers(value("ImagePositionPatient"), 3)
        size = int(ds.Rows), int(ds.Columns)
        number = int(ds.get("InstanceNumber") or 0)
        series = ds.get("SeriesInstanceUID")
        marks = [(mark, _text(map(value, keywords))) for mark, keywords in _MARKS.items()]
        spacing = dicom.pair_of(value("PixelSpacing"))
    except Exception:  # noqa: BLE001  (values of a corrupt file raise anything)
        return None
    if not series or orientation is None or position is None:
        return None
    return SliceGeometry(
        series=str(series),
        orientation=orientation,
        position=position,
        size=size,
        number=number,
        spacing=spacing,
        instance=str(ds.get("SOPInstanceUID") or ""),
        marks=tuple((mark, text) for mark, text in marks if text),
    )


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    if values is None or len(values) != count:
        return None
    numbers = tuple(float(part) for part in values)
    return numbers if all(map(math.isfinite, numbers)) else None


def _text(values: Iterable[Any]) -> str:
    """Return the first value that is there, as text."""
    for value in values:
        if value not in (None, ""):
            many = not isinstance(value, str) and isinstance(value, Iterable)
            return "\\".join(map(str, value)) if many else str(value)
    return ""
