"""``salip-ray export``: label volumes and DICOM segmentations."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from salip_ray.cli.options import Manifest, storage_options

Output = Annotated[str, typer.Argument(metavar="OUT", help="Output of salip-ray label.")]
Dest = Annotated[str, typer.Argument(metavar="DEST", help="Where to; outside of OUT.")]
Method = Annotated[str, typer.Option(help="Whose masks: cascade, gt_sam, unprompted_largest, ...")]
LabelsOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="fsspec storage option of OUT.")
]
DestOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="The same for DEST.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="The same for the images that were labelled."),
]


def opened(
    out: str,
    dest: str,
    manifest: str | None,
    labels_option: list[str] | None,
    dest_option: list[str] | None,
) -> tuple[Any, Any]:
    """The labels of an export and its destination."""
    from salip_ray.labels.exports.outside import Destination
    from salip_ray.labels.reading import Labels

    labels = Labels.open(out, storage_options("labels", labels_option), manifest)
    return labels, Destination(dest, labels, storage_options("dest", dest_option))


def say(written: int, what: str, dest: str, notes: list[str]) -> None:
    """Print what came of an export."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{written:,} {what} in {dest}")


def nifti(
    out: Output,
    dest: Dest,
    method: Method = "cascade",
    largest: Annotated[
        bool, typer.Option(help="Keep each class's largest component in 3-D alone.")
    ] = False,
    fill_holes: Annotated[bool, typer.Option(help="Fill holes in 3-D.")] = False,
    min_slices: Annotated[
        int, typer.Option(min=0, help="Drop components that reach over fewer slices.")
    ] = 0,
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    dest_option: DestOption = None,
    input_option: InputOption = None,
) -> None:
    """A label volume for each NIfTI volume: same shape, affine and header codes."""
    from salip_ray.labels.exports.nifti import export_nifti
    from salip_ray.labels.exports.tidy import Tidy

    labels, destination = opened(out, dest, manifest, labels_option, dest_option)
    written, notes = export_nifti(
        labels,
        destination,
        method=method,
        tidy=Tidy(largest=largest, fill_holes=fill_holes, min_slices=min_slices),
        source_options=storage_options("input", input_option),
    )
    say(written, "label volumes", destination.uri, notes)


def dicom_seg(
    out: Output,
    dest: Dest,
    method: Method = "cascade",
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    dest_option: DestOption = None,
    input_option: InputOption = None,
) -> None:
    """A DICOM Segmentation for each DICOM series or image, with its patient's attributes.

    Such an object names the patient, as the images do: keep DEST where they may be kept.
    """
    from salip_ray.labels.exports.dicom_seg import export_dicom_seg

    labels, destination = opened(out, dest, manifest, labels_option, dest_option)
    written, notes = export_dicom_seg(
        labels,
        destination,
        method=method,
        source_options=storage_options("input", input_option),
    )
    say(written, "segmentations", destination.uri, notes)
    typer.echo("note: they carry the patient attributes of their sources", err=True)
