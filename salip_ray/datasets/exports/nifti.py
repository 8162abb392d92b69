"""Label volumes in NIfTI, on the grid of the volumes and DICOM series that were labelled."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import nibabel
import numpy as np

from salip_ray.config import ImageConfig, PrivacyConfig
from salip_ray.datasets.exports import viewers
from salip_ray.datasets.exports.destination import Destination, destination_of
from salip_ray.datasets.exports.series_grid import SeriesGrid
from salip_ray.datasets.exports.tidy import Tidy
from salip_ray.datasets.exports.volumes import (
    NO_LIMITS,
    LabelledVolume,
    VolumeLabels,
    labelled_volumes,
)
from salip_ray.datasets.selection import LabelLimits
from salip_ray.errors import InputError
from salip_ray.output.masks import LabelMap, label_dtype
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.decode import NIFTI_SUFFIXES
from salip_ray.sources.formats import nifti
from salip_ray.sources.formats.names import stem, suffix
from salip_ray.sources.headers import read_frame_geometries, read_header, read_nifti_header
from salip_ray.sources.privacy import hides_uri, scrub
from salip_ray.sources.series import SliceGeometry
from salip_ray.wording import counted, one_line

_READERS = 16
#: Free text of a header, which may name a patient.
_TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")
_NO_TIDYING = Tidy()


def export_nifti(
    output: LabelOutput,
    location: str,
    *,
    method: str = "cascade",
    limits: LabelLimits = NO_LIMITS,
    tidy: Tidy = _NO_TIDYING,
    source_options: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[int, list[str]]:
    """Write ``NAME.nii.gz`` for each NIfTI volume, DICOM series and multi-frame object.

    Voxels hold class ids, as uint8, or uint16 past 254 classes; 255 (65535) marks what a reviewer
    set to ignore. The labels of a NIfTI volume have its shape (of one time point), affine and
    header codes; those of DICOM the affine of its positions. NAME is that of the source file, or
    the volume's id for a series and if the run hid names. Decisions of reviewers apply. A volume
    that cannot be written is left out, with a note. Two more files tell ITK-SNAP and 3D Slicer the
    names and colours of the classes.

    Args:
        output: the output.
        location: where to write; outside of the output.
        method: whose masks.
        limits: labels below them become background.
        tidy: what to tidy in 3-D.
        source_options: fsspec options of the input, whose headers are read again.
        storage_options: fsspec options of ``location``.

    Returns:
        The number of volumes written, and notes for the user.

    Raises:
        OutputError: slices are missing, or the destination cannot be written.
    """
    labels = VolumeLabels(output, method, limits)
    about = labels.describe("nifti", tidy=asdict(tidy))
    with destination_of(location, about, storage_options) as destination:
        writer = _VolumeWriter(labels, tidy, source_options)
        names = _Names(output)
        written, dropped, alone, notes = 0, 0, 0, []
        for volume in labelled_volumes(output):
            if len(volume.sources) == 1 and volume.sources[0].index is None:
                alone += 1  # an image of a DICOM series that is in no volume
                continue
            name = names.of(volume)
            try:
                data, gaps = writer.volume(volume)
            except Exception as error:  # noqa: BLE001  (headers are broken in many ways)
                reason = one_line(error)
                if names.hidden(volume):
                    reason = scrub(reason, [source.uri for source in volume.sources], name)
                notes.append(f"{name} is left out: {reason}")
                continue
            if not written:
                _write_names(labels, destination)
            destination.write(f"{name}.nii.gz", gzip.compress(data, compresslevel=6, mtime=0))
            written += 1
            if gaps:
                notes.append(f"{name}: the series lacks {counted(gaps, 'slice')}, background here")
            if volume.errors:
                notes.append(f"{name}: {counted(volume.errors, 'error row')}, background here")
            dropped += sum(
                labels.dropped(r) for r in volume.rows.values() if r["status"] != "error"
            )
        if dropped:
            notes.append(f"{counted(dropped, 'label')} of slices below the limits, background here")
        if alone:
            notes.append(f"{counted(alone, 'single image')} of DICOM series left out: no volume")
        destination.complete(volumes_written=written)
        return written, notes


def _write_names(labels: VolumeLabels, destination: Destination) -> None:
    names = {class_id: label for label, class_id in labels.class_ids.items()}
    names[labels.ignore_index] = "pixels to ignore"
    destination.write(viewers.ITKSNAP, viewers.itksnap_labels(names))
    destination.write(viewers.SLICER, viewers.slicer_colours(names))


class _Names:
    """Names of exported files: the stem of the source, with a part of the id if two share it."""

    def __init__(self, output: LabelOutput) -> None:
        recipe = output.run["fingerprint"]["recipe"]
        self._privacy = PrivacyConfig.model_validate(recipe.get("privacy", {}))
        uris = set(output.manifest()["uri"].to_pylist())
        self._stems = Counter(stem(uri) for uri in uris)

    def hidden(self, volume: LabelledVolume) -> bool:
        """Return True if the name of the source must not be shown."""
        return hides_uri(volume.sources[0].uri, self._privacy)

    def of(self, volume: LabelledVolume) -> str:
        """Return the name of a volume's file, without a suffix."""
        if volume.sources[0].index is None or self.hidden(volume):
            return volume.name
        name = stem(volume.sources[0].uri)
        return name if self._stems[name] == 1 else f"{name}-{volume.name[:8]}"


@dataclass(frozen=True)
class _VolumeWriter:
    """Makes the NIfTI file of a labelled volume."""

    labels: VolumeLabels
    tidy: Tidy
    source_options: Mapping[str, Any] | None

    @property
    def _config(self) -> ImageConfig:
        return self.labels.output.image_config

    def volume(self, volume: LabelledVolume) -> tuple[bytes, int]:
        """Return the bytes of a file, and the number of slices that the source lacks.

        Raises:
            InputError: the source is missing, has changed, or has no usable grid.
        """
        uri = volume.sources[0].uri
        if suffix(uri) in NIFTI_SUFFIXES:
            return self._of_nifti(volume, read_nifti_header(uri, self.source_options)), 0
        grid = SeriesGrid.of(self._slice_geometries(volume))
        return self._of_series(volume, grid), grid.gaps

    def _of_nifti(self, volume: LabelledVolume, header: Any) -> bytes:
        grid = nifti.grid_of(header, self._config)
        if grid.count != len(volume.sources):
            raise InputError(
                f"it had {counted(len(volume.sources), 'slice')} when it was labelled, "
                f"and its file has {grid.count} now"
            )
        values = self._background(grid.shape)
        for number, row in volume.rows.items():
            if row["status"] != "error":
                grid.plane(values, number)[...] = self.labels.label_map(row)
        values = self._tidied(values, grid.cut_axis)
        kind: Any = nibabel.Nifti2Image if header.sizeof_hdr == 540 else nibabel.Nifti1Image
        return bytes(kind(values, None, _label_header(header, values)).to_bytes())

    def _of_series(self, volume: LabelledVolume, grid: SeriesGrid) -> bytes:
        values = self._background(grid.shape)
        for number, row in volume.rows.items():
            if row["status"] != "error":
                values[:, :, grid.indices[number]] = self.labels.label_map(row).T
        image = nibabel.Nifti1Image(self._tidied(values, 2), grid.affine)
        image.set_sform(grid.affine, code="scanner")
        image.set_qform(grid.affine, code="scanner")
        if not np.allclose(image.get_qform(), grid.affine, atol=1e-3):
            image.set_qform(None, code="unknown")  # a quaternion cannot describe a tilted gantry
        image.header.set_xyzt_units("mm")
        return bytes(image.to_bytes())

    def _slice_geometries(self, volume: LabelledVolume) -> list[SliceGeometry]:
        uris = [source.uri for source in volume.sources]
        if volume.sources[0].index is not None:
            frames = read_frame_geometries(uris[0], self.source_options)
            if len(frames) != len(uris):
                raise InputError("its frames or pages have no position")
            return frames
        with ThreadPoolExecutor(_READERS) as readers:
            headers = readers.map(
                lambda uri: read_header(uri, self._config, self.source_options), uris
            )
            geometries = [header.geometry for header in headers if header.geometry is not None]
        if missing := len(uris) - len(geometries):
            raise InputError(f"{missing} of its {len(uris)} files are gone or have no position now")
        return geometries

    def _background(self, shape: tuple[int, int, int]) -> LabelMap:
        return np.zeros(shape, label_dtype(len(self.labels.class_ids)), order="F")

    def _tidied(self, values: LabelMap, axis: int) -> LabelMap:
        if self.tidy == _NO_TIDYING:
            return values
        return self.tidy(values, axis, self.labels.ignore_index)


def _label_header(source: Any, values: Any) -> Any:
    """Return the header of a volume, adapted to labels."""
    header = source.copy()
    header.set_data_shape(values.shape)
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # the display range was that of intensities
    header["intent_code"] = 0
    for name in _TEXT_FIELDS:
        if name in header:
            header[name] = b""
    return header
