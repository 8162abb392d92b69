"""``salip-ray calibrate``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from salip_ray.cli.options import Manifest, storage_option, storage_options
from salip_ray.wording import counted

if TYPE_CHECKING:
    from salip_ray.calibration.fit import Figure, Fit


def calibrate(
    labels: Annotated[str, typer.Argument(help="Output of label or consensus; local or a URI.")],
    reference: Annotated[
        str, typer.Argument(help="Folder of masks (same stem as the image), index.csv or COCO.")
    ],
    images: Annotated[
        int | None,
        typer.Option(metavar="N", min=10, help="Fit on at most N images, to score the others."),
    ] = None,
    manifest: Manifest = None,
    labels_option: Annotated[list[str] | None, storage_option("LABELS")] = None,
    reference_option: Annotated[list[str] | None, storage_option("REFERENCE")] = None,
) -> None:
    """Fit the confidences of LABELS on a few images with REFERENCE masks.

    The fit is written to LABELS/calibration.json. Everything that reads LABELS then sees the fitted
    confidences; the shards do not change. A class needs ten images with a label; a volume counts
    as one. No evaluation scores the images that were used.

    Example: salip-ray calibrate ./labels ./masks --images 30
    """
    from salip_ray.calibration.job import calibrate as fit_confidences
    from salip_ray.evaluation.coco_references import open_references
    from salip_ray.output.layout import CALIBRATION
    from salip_ray.output.reader import LabelOutput

    opened = LabelOutput.open(labels, storage_options("labels", labels_option), manifest)
    classes = [spec.label for spec in opened.classes]
    references = open_references(reference, classes, storage_options("reference", reference_option))
    done = fit_confidences(opened, references, reference, images=images)
    console = Console()
    console.print(_table(done.fits))
    for label, reason in done.refused.items():
        console.print(f"{label}: not fitted: {reason}", highlight=False, soft_wrap=True)
    console.print(
        f"{opened.store.path_of(CALIBRATION)}: fitted on {counted(len(done.images), 'image')}, "
        "which no evaluation scores from now on",
        highlight=False,
        soft_wrap=True,
    )


def _table(fits: Mapping[str, Fit]) -> Table:
    """Return the quality of each fit: of the stored confidence, and on labels left out of it."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("class", "confidence", "labels", "rho with Dice", "mean error", "bias"):
        table.add_column(heading)
    for label, fit in fits.items():
        for name, quality in (("as stored", fit.before), ("fitted, left out", fit.after)):
            if quality is not None:
                figures = (_shown(f) for f in (quality.rho, quality.error, quality.bias))
                table.add_row(label, name, f"{fit.labels:,}", *figures)
    return table


def _shown(figure: Figure) -> str:
    if math.isnan(figure.value):
        return "-"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
