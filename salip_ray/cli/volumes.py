"""``salip-ray export``: label volumes and DICOM segmentations, which go back to the archive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from salip_ray.cli.exporting import DestOption, ImagesOption, LabelsOption, Output, say
from salip_ray.cli.options import Manifest, storage_options

Dest = Annotated[str, typer.Argument(help="New or empty place outside of LABELS.")]
Method = Annotated[str, typer.Option(help="Whose masks: cascade, gt_sam, unprompted_largest, ...")]


def nifti(
    labels: Output,
    dest: Dest,
    method: Method = "cascade",
    largest: Annotated[
        bool, typer.Option("--largest", help="Keep each class's largest component in 3-D alone.")
    ] = False,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill holes in 3-D.")] = False,
    min_slices: Annotated[
        int, typer.Option(min=0, help="Drop components that reach over fewer slices.")
    ] = 0,
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """A label volume for each NIfTI volume (same grid and header codes) and DICOM series."""
    from salip_ray.datasets.exports.nifti import export_nifti
    from salip_ray.datasets.exports.tidy import Tidy
    from salip_ray.output.reader import LabelOutput

    written, notes = export_nifti(
        LabelOutput.open(labels, storage_options("labels", labels_option), manifest),
        dest,
        method=method,
        tidy=Tidy(largest=largest, fill_holes=fill_holes, min_slices=min_slices),
        source_options=storage_options("images", images_option),
        storage_options=storage_options("dest", dest_option),
    )
    _note(notes)
    say(written, dest, "label volumes")


def dicom_seg(
    labels: Output,
    dest: Dest,
    method: Method = "cascade",
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """A DICOM Segmentation for each DICOM series or image, with its patient's attributes.

    Such an object names the patient, as the images do: keep DEST where they may be kept.
    """
    from salip_ray.datasets.exports.dicom_seg import export_dicom_seg
    from salip_ray.output.reader import LabelOutput

    written, notes = export_dicom_seg(
        LabelOutput.open(labels, storage_options("labels", labels_option), manifest),
        dest,
        method=method,
        source_options=storage_options("images", images_option),
        storage_options=storage_options("dest", dest_option),
    )
    _note([*notes, "they carry the patient attributes of their sources"])
    say(written, dest, "segmentations")


def _note(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)
