"""Read masks of DICOM Segmentation objects, whose components are prompts.

A segmentation names its images by SOPInstanceUID, not by file. Its segments belong to the class
with their label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from salip_ray.config import ClassSpec, ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.sources.coco_masks import encode_mask
from salip_ray.sources.formats.dicom_dataset import plane_of, quiet, read_data
from salip_ray.sources.formats.stack import Plane, check_frames, check_pixels
from salip_ray.wording import one_line

_SEGMENTATION, _LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_LONGEST_LABEL = 64  # characters of DICOM's value representation LO


@dataclass(frozen=True, slots=True)
class SegmentMask:
    """The mask of a class on one image.

    Attributes:
        instance: SOPInstanceUID of the image.
        frame: number of the frame of it, from 0; None if it has one.
        label: the class.
        rle: the mask.
        plane: where it lies in the patient, if the segmentation says so.
    """

    instance: str
    frame: int | None
    label: str
    rle: dict[str, Any]
    plane: Plane | None


def segment_label(label: str) -> str:
    """Return a class label as a SegmentLabel, in which a backslash would separate two values."""
    return re.sub(r"[\\\x00-\x1f\x7f]", "_", label).strip()[:_LONGEST_LABEL]


def read_segmentation(
    data: bytes, shown: str, classes: Sequence[ClassSpec] | None
) -> Iterator[SegmentMask]:
    """Yield the masks of a segmentation that are not empty.

    Args:
        data: the file.
        shown: its name, for messages.
        classes: of the task; None if the labels of segments need not be classes.

    Raises:
        InputError: it is no segmentation, cannot be read, has a segment of no class, or does not
            name its images.
    """
    try:
        config = ImageConfig()
        with quiet():
            ds = read_data(data, config)
            if str(ds.get("SOPClassUID")) not in {_SEGMENTATION, _LABEL_MAP}:
                raise InputError(
                    f"{shown} are no DICOM Segmentation, but {ds.get('Modality')}: give "
                    "the segmentation alone"
                )
            check_pixels(int(ds.Columns), int(ds.Rows), config)
            check_frames(int(ds.get("NumberOfFrames") or 1), config)
            yield from _masks(ds, shown, classes)
    except (InputError, MemoryError):
        raise
    except ImageError as error:
        raise InputError(f"{shown} cannot be read: {error}") from None
    except Exception as error:  # noqa: BLE001  (corrupt files make pydicom raise anything)
        raise InputError(
            f"{shown} are no DICOM Segmentation that can be read: {one_line(error)}"
        ) from None


def _masks(ds: Dataset, shown: str, classes: Sequence[ClassSpec] | None) -> Iterator[SegmentMask]:
    label_of = _labels(ds, shown, classes)
    kind = str(ds.get("SegmentationType") or "BINARY")
    # A fraction of more than a half counts.
    above = int(ds.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0
    groups = ds.PerFrameFunctionalGroupsSequence
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    background = {0, ds.get("PixelPaddingValue")}  # of label maps
    for number, (group, pixels) in enumerate(zip(groups, iter_pixels(ds), strict=True), start=1):
        at = f"frame {number} of {shown}"
        instance, frame = _source(group, shared, at)
        if kind == "LABELMAP":
            values = np.unique(pixels).tolist()
            masks = {value: pixels == value for value in values if value not in background}
        else:
            masks = {_segment(group, shared): pixels > above}
        for segment, mask in masks.items():
            if not np.any(mask):
                continue
            if segment not in label_of:
                raise InputError(f"{at} has pixels of segment {segment}, which the file lacks")
            plane = plane_of(ds, number - 1)
            yield SegmentMask(instance, frame, label_of[segment], encode_mask(mask), plane)


def _labels(ds: Dataset, shown: str, classes: Sequence[ClassSpec] | None) -> dict[int, str]:
    known = {segment_label(spec.label): spec.label for spec in classes or ()}
    labels = {}
    for item in ds.SegmentSequence:
        number, label = int(item.SegmentNumber), str(item.SegmentLabel).strip()
        if str(ds.get("SegmentationType")) == "LABELMAP" and number == 0:
            continue  # the background
        if number in labels:
            raise InputError(f"{shown} have two segments with the number {number}")
        if classes is None:
            # Segments of one label stay apart.
            labels[number] = f"{number} {label}"
            continue
        if label not in known:
            raise InputError(
                f"{shown} have the segment {label!r}, but the task has "
                f"{', '.join(known.values())}: give a task with that class, or rename it"
            )
        labels[number] = known[label]
    return labels


def _segment(group: Dataset, shared: Dataset) -> int:
    name = "SegmentIdentificationSequence"
    (item,) = group[name].value if name in group else shared[name].value
    return int(item.ReferencedSegmentNumber)


def _source(group: Dataset, shared: Dataset, at: str) -> tuple[str, int | None]:
    """Return the SOPInstanceUID of the image of a frame, and the frame of it, from 0."""
    for groups in (group, shared):
        for derivation in groups.get("DerivationImageSequence") or ():
            sources: list[Dataset] = list(derivation.get("SourceImageSequence") or ())
            if len(sources) == 1:
                frame = sources[0].get("ReferencedFrameNumber")
                if frame is not None and int(frame) < 1:
                    raise InputError(f"{at} names frame {frame} of its image: frames count from 1")
                return str(sources[0].ReferencedSOPInstanceUID), (
                    None if frame is None else int(frame) - 1
                )
    raise InputError(
        f"{at} does not name the one image that it is of (DerivationImageSequence): export the "
        "segmentation on the grid of its series"
    )
