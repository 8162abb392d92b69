"""Label volumes in NIfTI, on the grid of the volumes and DICOM series that were labelled."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import nibabel
import numpy as np

from salip_ray.config import ImageConfig, PrivacyConfig
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.exports.series_grid import SeriesGrid
from salip_ray.datasets.exports.tidy import Tidy
from salip_ray.datasets.exports.volumes import (
    LabelledVolume,
    about,
    labelled_volumes,
    row_label_map,
)
from salip_ray.errors import InputError
from salip_ray.output.masks import LabelMap
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.formats import nifti
from salip_ray.sources.formats.names import stem, suffix
from salip_ray.sources.headers import read_frame_geometries, read_header, read_nifti_header
from salip_ray.sources.privacy import hides_uri
from salip_ray.sources.series import SliceGeometry

SUFFIXES = frozenset({".nii", ".nii.gz"})
_READERS = 16
#: Free text of a header, which may name whom the volume shows.
_TEXT = ("descrip", "aux_file", "intent_name", "db_name")


def export_nifti(
    labels: LabelOutput,
    location: str,
    *,
    method: str = "cascade",
    tidy: Tidy = Tidy(),  # noqa: B008  (frozen)
    source_options: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[int, list[str]]:
    """Write ``NAME.nii.gz`` for each NIfTI volume, DICOM series and multi-frame object.

    Class ids are uint8, or uint16 past 254 classes. A NIfTI volume's labels have its shape (of one
    time point), affine and header codes; those of DICOM the affine of its positions. NAME is the
    source file's, or the volume's id for a series and where the run kept names out of its output.

    Args:
        labels: the output.
        location: where to; outside of the output.
        method: whose masks.
        tidy: what is tidied in 3-D.
        source_options: fsspec options of the input, whose headers are read again.
        storage_options: fsspec options of ``location``.

    Returns:
        How many volumes were written, and notes.

    Raises:
        InputError: a source is no longer there, or has changed its shape.
        OutputError: slices are missing, or the destination cannot be written.
    """
    settings = {"method": method, "tidy": asdict(tidy)}
    destination = Destination(location, about("nifti", labels, **settings), storage_options)
    config = labels.image_config
    names = Names(labels)
    written, notes = 0, []
    for volume in labelled_volumes(labels):
        name, uri = names.of(volume), volume.sources[0].uri
        if suffix(uri) in SUFFIXES:
            header = read_nifti_header(uri, source_options)
            data = _label_volume(volume, header, config, labels, method, tidy)
        else:
            try:
                grid = SeriesGrid.of(_slice_geometries(volume, config, source_options))
            except InputError as error:
                notes.append(f"{name}: {error}; left out")
                continue
            if grid.gaps:
                of = f"{grid.gaps} of {grid.shape[2]} slices"
                notes.append(f"{name}: {of} are missing, and background here")
            data = _series_volume(volume, grid, labels, method, tidy)
        destination.write(f"{name}.nii.gz", gzip.compress(data, compresslevel=6, mtime=0))
        written += 1
        if volume.errors:
            notes.append(f"{name}: {volume.errors} slices are error rows, and background here")
    destination.complete(volumes_written=written)
    return written, notes


class Names:
    """Names of exported files: the source's stem, with a part of the id where two share one."""

    def __init__(self, labels: LabelOutput) -> None:
        recipe = labels.run["fingerprint"]["recipe"]
        self._privacy = PrivacyConfig.model_validate(recipe.get("privacy", {}))
        uris = set(labels.manifest()["uri"].to_pylist())
        self._stems = Counter(stem(uri) for uri in uris)

    def of(self, volume: LabelledVolume) -> str:
        """The name of a volume's file, without a suffix."""
        uri = volume.sources[0].uri
        if volume.sources[0].index is None or hides_uri(uri, self._privacy):
            return volume.name
        name = stem(uri)
        return name if self._stems[name] == 1 else f"{name}-{volume.name[:8]}"


def _label_volume(
    volume: LabelledVolume,
    header: Any,
    config: ImageConfig,
    labels: LabelOutput,
    method: str,
    tidy: Tidy,
) -> bytes:
    grid = nifti.grid_of(header, config)
    if grid.count != len(volume.sources):
        raise InputError(
            f"volume {volume.name} had {len(volume.sources)} slices when it was labelled, "
            f"its file has {grid.count} now"
        )
    n_classes = len(labels.classes)
    values = _background(grid.shape, n_classes)
    for place, row in volume.rows.items():
        if row["status"] != "error":
            grid.plane(values, place)[...] = row_label_map(row, method, n_classes)
    if tidy != Tidy():
        values = tidy(values, grid.cut_axis)
    kind: Any = nibabel.Nifti2Image if header.sizeof_hdr == 540 else nibabel.Nifti1Image
    return bytes(kind(values, grid.affine, _as_labels(header, values)).to_bytes())


def _slice_geometries(
    volume: LabelledVolume, config: ImageConfig, source_options: Mapping[str, Any] | None
) -> list[SliceGeometry]:
    uris = [source.uri for source in volume.sources]
    if volume.sources[0].index is not None:
        places = read_frame_geometries(uris[0], source_options)
        if len(places) != len(uris):
            raise InputError("its frames or pages have no position")
        return places
    with ThreadPoolExecutor(_READERS) as readers:
        headers = readers.map(lambda uri: read_header(uri, config, source_options), uris)
        found = [header.geometry for header in headers if header.geometry is not None]
    if len(found) < len(uris):
        missing = len(uris) - len(found)
        raise InputError(f"{missing} of its {len(uris)} files are gone, or have no position now")
    return found


def _series_volume(
    volume: LabelledVolume, grid: SeriesGrid, labels: LabelOutput, method: str, tidy: Tidy
) -> bytes:
    n_classes = len(labels.classes)
    values = _background(grid.shape, n_classes)
    for place, row in volume.rows.items():
        if row["status"] != "error":
            values[:, :, grid.places[place]] = row_label_map(row, method, n_classes).T
    if tidy != Tidy():
        values = tidy(values, 2)
    image = nibabel.Nifti1Image(values, grid.affine)
    image.set_sform(grid.affine, code="scanner")
    image.set_qform(grid.affine, code="scanner")
    if not np.allclose(image.get_qform(), grid.affine, atol=1e-3):
        image.set_qform(None, code="unknown")  # a quaternion knows no tilted gantry
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())


def _background(shape: tuple[int, int, int], n_classes: int) -> LabelMap:
    if n_classes <= 254:
        return np.zeros(shape, np.uint8, order="F")
    return np.zeros(shape, np.uint16, order="F")


def _as_labels(source: Any, values: Any) -> Any:
    header = source.copy()
    header.set_data_shape(values.shape)
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # the display range was that of intensities
    header["intent_code"] = 0
    for name in _TEXT:
        if name in header:
            header[name] = b""
    return header
