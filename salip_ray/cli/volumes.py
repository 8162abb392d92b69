"""``salip-ray export nifti`` and ``dicom-seg``: label volumes and DICOM segmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salip_ray.cli.exporting import (
    DestOption,
    ImagesOption,
    LabelsOption,
    Output,
    options_of,
    report_notes,
    report_written,
)
from salip_ray.cli.options import Manifest, storage_options
from salip_ray.errors import JobError

if TYPE_CHECKING:
    from salip_ray.output.reader import LabelOutput

Dest = Annotated[str, typer.Argument(help="New or empty location outside of LABELS.")]
Method = Annotated[
    str, typer.Option(help="Method of the masks: cascade, gt_sam, unprompted_largest, ...")
]
MinConfidence = Annotated[
    float, typer.Option(min=0, max=1, help="Leave out labels of lower confidence.")
]
MinPresence = Annotated[
    float, typer.Option(min=0, max=1, help="Leave out labels of a class of lower presence.")
]
MinArea = Annotated[
    float,
    typer.Option(min=0, help="Leave out smaller labels: a share of the slice up to 1, else px."),
]


@dataclass(frozen=True)
class VolumeExport:
    """An output and the destination of its export; ``keywords`` are arguments of both formats."""

    output: LabelOutput
    dest: str
    keywords: dict[str, Any]


def _opened(
    labels: Output,
    dest: Dest,
    method: Method = "cascade",
    min_confidence: MinConfidence = 0.0,
    min_presence: MinPresence = 0.0,
    min_area: MinArea = 0.0,
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> VolumeExport:
    """Open the output. The parameters are the options that both formats share."""
    from salip_ray.datasets.selection import LabelLimits
    from salip_ray.output.reader import LabelOutput

    limits = LabelLimits(
        min_confidence=min_confidence, min_presence=min_presence, min_area=min_area
    )
    keywords = {
        "method": method,
        "limits": limits,
        "source_options": storage_options("images", images_option),
        "storage_options": storage_options("dest", dest_option),
    }
    opened = LabelOutput.open(labels, storage_options("labels", labels_option), manifest)
    return VolumeExport(opened, dest, keywords)


@options_of(_opened)
def nifti(
    export: VolumeExport,
    largest: Annotated[
        bool, typer.Option("--largest", help="Only the largest 3-D component of each class.")
    ] = False,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill holes in 3-D.")] = False,
    min_slices: Annotated[
        int, typer.Option(min=0, help="Drop components that span fewer slices.")
    ] = 0,
) -> None:
    """Write a label volume for each NIfTI volume (same grid and header codes) and DICOM series."""
    from salip_ray.datasets.exports.nifti import export_nifti
    from salip_ray.datasets.exports.tidy import Tidy

    tidy = Tidy(largest=largest, fill_holes=fill_holes, min_slices=min_slices)
    written, notes = export_nifti(export.output, export.dest, tidy=tidy, **export.keywords)
    report_notes(notes)
    _require_some(written, f"{export.output.uri} has no NIfTI volume or DICOM series to write")
    report_written(written, export.dest, "label volume")


@options_of(_opened)
def dicom_seg(export: VolumeExport) -> None:
    """Write a DICOM Segmentation for each DICOM series or image, with its patient attributes.

    The objects name the patient, as the images do: protect DEST like the images.
    """
    from salip_ray.datasets.exports.dicom_seg import export_dicom_seg

    written, notes = export_dicom_seg(export.output, export.dest, **export.keywords)
    report_notes([*notes, "the segmentations hold the patient attributes of their sources"])
    _require_some(written, f"{export.output.uri} has no DICOM image with a label to write")
    report_written(written, export.dest, "segmentation")


def _require_some(written: int, problem: str) -> None:
    if not written:
        raise JobError(f"nothing was exported: {problem}")
