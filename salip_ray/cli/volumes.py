"""``salip-ray export nifti`` and ``dicom-seg``: label volumes and DICOM segmentations."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.exporting import (
    DestOption,
    ImagesOption,
    LabelsOption,
    Output,
    report_notes,
    report_written,
)
from salip_ray.cli.options import Manifest, storage_options
from salip_ray.errors import JobError

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


def nifti(
    labels: Output,
    dest: Dest,
    method: Method = "cascade",
    min_confidence: MinConfidence = 0.0,
    min_presence: MinPresence = 0.0,
    min_area: MinArea = 0.0,
    largest: Annotated[
        bool, typer.Option("--largest", help="Only the largest 3-D component of each class.")
    ] = False,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill holes in 3-D.")] = False,
    min_slices: Annotated[
        int, typer.Option(min=0, help="Drop components that span fewer slices.")
    ] = 0,
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """Write a label volume for each NIfTI volume (same grid and header codes) and DICOM series."""
    from salip_ray.datasets.exports.nifti import export_nifti
    from salip_ray.datasets.exports.tidy import Tidy
    from salip_ray.datasets.selection import LabelLimits
    from salip_ray.output.reader import LabelOutput

    written, notes = export_nifti(
        LabelOutput.open(labels, storage_options("labels", labels_option), manifest),
        dest,
        method=method,
        limits=LabelLimits(
            min_confidence=min_confidence, min_presence=min_presence, min_area=min_area
        ),
        tidy=Tidy(largest=largest, fill_holes=fill_holes, min_slices=min_slices),
        source_options=storage_options("images", images_option),
        storage_options=storage_options("dest", dest_option),
    )
    report_notes(notes)
    _require_some(written, f"{labels} has no NIfTI volume or DICOM series that could be written")
    report_written(written, dest, "label volume")


def dicom_seg(
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
) -> None:
    """Write a DICOM Segmentation for each DICOM series or image, with its patient attributes.

    The objects name the patient, as the images do: protect DEST like the images.
    """
    from salip_ray.datasets.exports.dicom_seg import export_dicom_seg
    from salip_ray.datasets.selection import LabelLimits
    from salip_ray.output.reader import LabelOutput

    written, notes = export_dicom_seg(
        LabelOutput.open(labels, storage_options("labels", labels_option), manifest),
        dest,
        method=method,
        limits=LabelLimits(
            min_confidence=min_confidence, min_presence=min_presence, min_area=min_area
        ),
        source_options=storage_options("images", images_option),
        storage_options=storage_options("dest", dest_option),
    )
    report_notes([*notes, "the segmentations hold the patient attributes of their sources"])
    _require_some(written, f"{labels} has no DICOM image with a label that could be written")
    report_written(written, dest, "segmentation")


def _require_some(written: int, problem: str) -> None:
    if not written:
        raise JobError(f"nothing was exported: {problem}")
