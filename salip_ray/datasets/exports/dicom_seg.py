"""Labels as DICOM Segmentation objects that reference the series they were made from.

A segmentation carries the patient's and the study's attributes of its source, as the standard has
it: this export is for the archive that the images came from.
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
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.exports.volumes import LabelledVolume, about, class_masks, labelled_volumes
from salip_ray.errors import InputError, MissingDependencyError
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats.dicom import quiet
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.stack import one_line
from salip_ray.sources.privacy import scrub

#: Attributes of patient and study that an object must have, if empty; anonymisers leave them out.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_NOT_DICOM = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".nii", ".nii.gz"})


def export_dicom_seg(
    labels: LabelOutput,
    location: str,
    *,
    method: str = "cascade",
    source_options: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[int, list[str]]:
    """Write ``VOLUME.dcm`` for each DICOM series, multi-frame object or lone image of an output.

    Each class is a binary segment; frames where it has no pixel are left out, as is usual. A volume
    without any pixel gives no file, for the standard knows no empty segmentation. The UIDs follow
    from volume, method and pixels, so that the same export gives the same objects, and another run
    others.

    Args:
        labels: the output.
        location: where to; outside of the output.
        method: whose masks.
        source_options: fsspec options of the input, whose attributes are read again.
        storage_options: fsspec options of ``location``.

    Returns:
        How many objects were written, and notes.

    Raises:
        MissingDependencyError: highdicom is not installed.
        OutputError: slices are missing, or the destination cannot be written.
    """
    try:
        import highdicom
    except ImportError:
        raise MissingDependencyError("highdicom", "export dicom-seg", "dicom-seg") from None
    del highdicom
    destination = Destination(location, about("dicom-seg", labels, method=method), storage_options)
    written, notes = 0, []
    for volume in labelled_volumes(labels, lone=True):
        if suffix(volume.sources[0].uri) in _NOT_DICOM:
            continue
        if volume.errors == len(volume.sources):
            notes.append(f"{volume.name}: not decoded, left out")
            continue
        if volume.errors:
            notes.append(f"{volume.name}: {volume.errors} slices are error rows, not segmented")
        try:
            sources = _sources(volume, source_options)
            data = segmentation(volume, sources, labels.classes, method)
        except Exception as error:  # noqa: BLE001  (a source that lacks what the standard wants)
            uris = [source.uri for source in volume.sources]  # may hold a patient's name
            problem = scrub(one_line(error), uris, volume.name)
            notes.append(f"{volume.name}: its source allows no segmentation: {problem}")
            continue
        if data is None:
            notes.append(f"{volume.name}: nothing was labelled, no object is written")
            continue
        destination.write(f"{volume.name}.dcm", data)
        written += 1
    destination.complete(objects_written=written)
    return written, notes


def segmentation(
    volume: LabelledVolume,
    sources: Sequence[pydicom.Dataset],
    classes: Sequence[ClassSpec],
    method: str,
) -> bytes | None:
    """The Segmentation object of a volume as the bytes of a file; None where no pixel is set."""
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        Segmentation,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes

    pixels = _pixels(volume, classes, method)
    present = [index for index in range(len(classes)) if pixels[..., index].any()]
    if not present:
        return None
    shown = pixels[..., present]
    # Other pixels are another object: two runs on a series may lie in one archive.
    made_of = (volume.name, method, salip_ray.__version__, *(classes[i].label for i in present))
    digest = hashlib.sha256(repr((made_of, shown.shape)).encode() + shown.tobytes()).hexdigest()
    algorithm = AlgorithmIdentificationSequence(
        name="SaLIP", family=codes.DCM.ArtificialIntelligence, version=salip_ray.__version__
    )
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=classes[index].label[:64],
            segmented_property_category=codes.SCT.BodyStructure,
            segmented_property_type=codes.SCT.Organ,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, index in enumerate(present, start=1)
    ]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Segmentation(
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
            series_description=f"salip_ray {method}"[:64],
        )
        buffer = io.BytesIO()
        found.save_as(buffer)
    return buffer.getvalue()


def _pixels(
    volume: LabelledVolume, classes: Sequence[ClassSpec], method: str
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """0 and 1, of shape [slices, rows, columns, classes]: overlaps stay."""
    known = next(row for row in volume.rows.values() if row["status"] != "error")
    shape = (len(volume.sources), known["height"], known["width"], len(classes))
    pixels = np.zeros(shape, np.uint8)
    column = {spec.class_id: index for index, spec in enumerate(classes)}
    for place, source in enumerate(volume.sources):
        for class_id, mask in class_masks(volume.rows[source.slice], method).items():
            pixels[place, ..., column[class_id]] = mask
    return pixels


def _sources(
    volume: LabelledVolume, source_options: Mapping[str, Any] | None
) -> list[pydicom.Dataset]:
    """The data sets of a volume's files, in order: one, if it is a multi-frame object."""
    uris = list(dict.fromkeys(source.uri for source in volume.sources))
    found: list[pydicom.Dataset] = []
    for uri in uris:
        (data,) = fetch_all([uri], source_options)
        if isinstance(data, Exception):
            raise InputError(str(data))
        ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
        for name in _MAY_BE_EMPTY:
            if name not in ds:
                setattr(ds, name, "")
        found.append(ds)
    return found


def _uid(*parts: str) -> pydicom.uid.UID:
    return pydicom.uid.generate_uid(entropy_srcs=["salip_ray segmentation", *parts])
