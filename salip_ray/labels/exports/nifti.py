"""Label volumes in NIfTI, on the grid of the volumes that were labelled."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import nibabel
import numpy as np

from salip_ray.config import ImageConfig
from salip_ray.errors import InputError
from salip_ray.labels.exports.outside import Destination
from salip_ray.labels.exports.tidy import Tidy
from salip_ray.labels.exports.volumes import LabelledVolume, labelled_volumes, row_label_map
from salip_ray.labels.reading import Labels
from salip_ray.sources.formats import nifti
from salip_ray.sources.formats.names import stem, suffix
from salip_ray.sources.headers import read_nifti_header

SUFFIXES = frozenset({".nii", ".nii.gz"})
#: Free text of a header, which may name whom the volume shows.
_TEXT = ("descrip", "aux_file", "intent_name", "db_name")


def export_nifti(
    labels: Labels,
    destination: Destination,
    *,
    method: str = "cascade",
    tidy: Tidy | None = None,
    source_options: Mapping[str, Any] | None = None,
) -> tuple[int, list[str]]:
    """Write ``NAME.nii.gz`` for each NIfTI volume of an output.

    It has the volume's shape (of one time point), affine and header codes, and class ids of uint8,
    or uint16 past 254 classes. NAME is the source file's, or the volume's id where the run kept
    names out of its output.

    Args:
        labels: the output.
        destination: where to.
        method: whose masks.
        tidy: what is tidied in 3-D.
        source_options: fsspec options of the input, whose headers are read again.

    Returns:
        How many volumes were written, and notes.

    Raises:
        InputError: a source is no longer there, or has changed its shape.
        OutputError: slices are missing, or the destination cannot be written.
    """
    tidy = tidy or Tidy()
    config = labels.image_config
    names = Names(labels)
    written, notes = 0, []
    for volume in labelled_volumes(labels):
        uri = volume.sources[0].uri
        if suffix(uri) not in SUFFIXES:
            continue
        header = read_nifti_header(uri, source_options)
        data = _label_volume(volume, header, config, labels, method, tidy)
        name = names.of(volume.name, uri)
        destination.write(f"{name}.nii.gz", gzip.compress(data, compresslevel=6, mtime=0))
        written += 1
        if volume.errors:
            notes.append(f"{name}: {volume.errors} slices are error rows, and background here")
    destination.record("nifti", labels, {"method": method, "tidy": asdict(tidy)})
    return written, notes


class Names:
    """Names of exported files: the source's stem, with a part of the id where two share one."""

    def __init__(self, labels: Labels) -> None:
        privacy = labels.run["fingerprint"]["recipe"].get("privacy", {})
        self._hidden = privacy.get("hash_uris") is True
        uris = set(labels.manifest()["uri"].to_pylist())
        self._stems = Counter(stem(uri) for uri in uris)

    def of(self, volume: str, uri: str) -> str:
        """The name of a volume's file, without a suffix."""
        if self._hidden:
            return volume
        name = stem(uri)
        return name if self._stems[name] == 1 else f"{name}-{volume[:8]}"


def _label_volume(
    volume: LabelledVolume,
    header: Any,
    config: ImageConfig,
    labels: Labels,
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
    values = np.zeros(grid.shape, np.uint8 if n_classes <= 254 else np.uint16, order="F")
    for place, row in volume.rows.items():
        if row["status"] != "error":
            grid.plane(values, place)[...] = row_label_map(row, method, n_classes)
    if tidy != Tidy():
        values = tidy(values, grid.cut_axis)
    kind: Any = nibabel.Nifti2Image if header.sizeof_hdr == 540 else nibabel.Nifti1Image
    return bytes(kind(values, grid.affine, _as_labels(header, values)).to_bytes())


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
