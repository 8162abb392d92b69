"""Labels as DICOM Segmentation objects that refer to the series they were made from.

A segmentation has the patient's and the study's attributes of its source, as the standard demands:
this export is for the archive that the images came from.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pydicom

import salip_ray
from salip_ray.config import ClassSpec
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.exports.viewers import colour_of
from salip_ray.datasets.exports.volumes import (
    NO_LIMITS,
    LabelledVolume,
    VolumeLabels,
    labelled_volumes,
)
from salip_ray.datasets.selection import LabelLimits
from salip_ray.errors import InputError, MissingDependencyError
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.decode import NOT_DICOM_SUFFIXES
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats.dicom_dataset import quiet
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.privacy import scrub
from salip_ray.sources.prompts.segmentations import segment_label
from salip_ray.wording import counted, one_line

#: Attributes of patient and study that an object must have but may leave empty. Anonymisers
#: delete them.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_UTF_8 = "ISO_IR 192"
_LONGEST_LABEL = 64  # characters of DICOM's value representation LO


def export_dicom_seg(
    output: LabelOutput,
    location: str,
    *,
    method: str = "cascade",
    limits: LabelLimits = NO_LIMITS,
    source_options: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[int, list[str]]:
    """Write ``VOLUME.dcm`` for each DICOM series, multi-frame object or single image of an output.

    Each class is a binary segment; frames without a pixel of it are left out, as is usual. A volume
    without any pixel gives no file, because the standard knows no empty segmentation. Decisions of
    reviewers apply; pixels that they set to ignore are background. UIDs follow from volume, method
    and pixels: the same export gives the same objects, another run gives others. Text is UTF-8.

    Args:
        output: the output.
        location: where to write; outside of the output.
        method: whose masks.
        limits: labels below them are left out.
        source_options: fsspec options of the input, whose attributes are read again.
        storage_options: fsspec options of ``location``.

    Returns:
        The number of objects written, and notes for the user.

    Raises:
        MissingDependencyError: highdicom is not installed.
        OutputError: slices are missing, or the destination cannot be written.
    """
    try:
        import highdicom
    except ImportError:
        raise MissingDependencyError("highdicom", "export dicom-seg", "dicom-seg") from None
    del highdicom
    labels = VolumeLabels(output, method, limits)
    with destination_of(location, labels.describe("dicom-seg"), storage_options) as destination:
        written, others, notes = 0, 0, []
        for volume in labelled_volumes(output, single=True):
            if suffix(volume.sources[0].uri) in NOT_DICOM_SUFFIXES:
                others += 1
                continue
            if volume.errors == len(volume.sources):
                notes.append(f"{volume.name} is left out: it has only error rows")
                continue
            if volume.errors:
                notes.append(f"{volume.name}: {counted(volume.errors, 'error row')}, not segmented")
            try:
                data = segmentation(volume, _sources(volume, source_options), labels)
            except Exception as error:  # noqa: BLE001  (sources lack attributes in many ways)
                uris = [source.uri for source in volume.sources]  # may hold a patient's name
                problem = scrub(one_line(error), uris, volume.name)
                notes.append(
                    f"{volume.name} is left out: its source allows no segmentation: {problem}"
                )
                continue
            if data is None:
                notes.append(f"{volume.name} is left out: nothing was labelled")
                continue
            destination.write(f"{volume.name}.dcm", data)
            written += 1
        if others:
            notes.append(f"left out {counted(others, 'image')} and volumes that are not DICOM")
        destination.complete(objects_written=written)
        return written, notes


def segmentation(
    volume: LabelledVolume, sources: Sequence[pydicom.Dataset], labels: VolumeLabels
) -> bytes | None:
    """Return the Segmentation object of a volume as the bytes of a file; None if it has no pixel.

    Args:
        volume: the volume.
        sources: its DICOM data sets, in order; text decoded.
        labels: its labels.
    """
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        Segmentation,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes

    classes = labels.output.classes
    pixels = _pixels(volume, classes, labels)
    present = [index for index in range(len(classes)) if pixels[..., index].any()]
    if not present:
        return None
    shown = pixels[..., present]
    # Other pixels are another object: one archive may hold two runs on a series.
    identity = (
        *(volume.name, labels.method, salip_ray.__version__),
        *(classes[index].label for index in present),
    )
    digest = hashlib.sha256(repr((identity, shown.shape)).encode() + shown.tobytes()).hexdigest()
    algorithm = AlgorithmIdentificationSequence(
        name="SaLIP", family=codes.DCM.ArtificialIntelligence, version=salip_ray.__version__
    )
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=segment_label(classes[index].label),
            segmented_property_category=codes.SCT.BodyStructure,
            segmented_property_type=codes.SCT.Organ,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_rgb(*colour_of(classes[index].class_id)),
        )
        for number, index in enumerate(present, start=1)
    ]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Segmentation(
            source_images=sources,
            pixel_array=shown,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=_uid(digest, "series"),
            series_number=1,
            sop_instance_uid=_uid(digest, "instance"),
            instance_number=1,
            manufacturer="salip_ray",
            manufacturer_model_name="salip-ray",
            software_versions=salip_ray.__version__,
            device_serial_number="0",
            content_label="PSEUDO_LABELS",
            content_description="Pseudo-labels: research use only",
            series_description=f"salip_ray {labels.method}"[:_LONGEST_LABEL],
            specific_character_set=_UTF_8,
        )
        buffer = io.BytesIO()
        made.save_as(buffer)
    return buffer.getvalue()


def _pixels(
    volume: LabelledVolume, classes: Sequence[ClassSpec], labels: VolumeLabels
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return 0 and 1, of shape [slices, rows, columns, classes], so that overlaps stay."""
    known = next(row for row in volume.rows.values() if row["status"] != "error")
    shape = (len(volume.sources), known["height"], known["width"], len(classes))
    pixels = np.zeros(shape, np.uint8)
    column = {spec.class_id: index for index, spec in enumerate(classes)}
    for number, source in enumerate(volume.sources):
        row = volume.rows[source.slice]
        if row["status"] == "error":
            continue
        for class_id, mask in labels.masks(row).items():
            pixels[number, ..., column[class_id]] = mask
    return pixels


def _sources(
    volume: LabelledVolume, source_options: Mapping[str, Any] | None
) -> list[pydicom.Dataset]:
    """Return the data sets of a volume's files, in order: one, if it is a multi-frame object."""
    uris = list(dict.fromkeys(source.uri for source in volume.sources))
    sources: list[pydicom.Dataset] = []
    for uri in uris:
        (data,) = fetch_all([uri], source_options)
        if isinstance(data, Exception):
            raise InputError(str(data))
        ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
        with quiet():
            # Text becomes Unicode, so that any class name can be written next to it.
            ds.decode()
            ds.SpecificCharacterSet = _UTF_8
        for name in _MAY_BE_EMPTY:
            if name not in ds:
                setattr(ds, name, "")
        sources.append(ds)
    return sources


def _uid(*parts: str) -> pydicom.uid.UID:
    return pydicom.uid.generate_uid(entropy_srcs=["salip_ray segmentation", *parts])
