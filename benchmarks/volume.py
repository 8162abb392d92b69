"""Label one real volume unchanged and score it in 3-D: ``make volume``.

The T1 volume of ``brain_mri`` in ``$SALIP_REAL_DATA`` (default ``../shared/data``), all its slices
along one axis, by the shipped task ``brain``. Prints the 3-D Dice of the un-prompted SAM, of the
cascade and of GT-SAM against ``brainmask.nii``, and the slices per second of the run; the label
volumes stay in ``volume-output/``.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
import numpy.typing as npt
import typer

from benchmarks.realdata import PROJECT, real_data
from salip_ray.config import load_config
from salip_ray.datasets.exports.nifti import export_nifti
from salip_ray.datasets.exports.tidy import Tidy
from salip_ray.errors import SalipError
from salip_ray.output.reader import LabelOutput

_METHODS = ("unprompted_confident", "unprompted_largest", "cascade", "gt_sam")


def dice(predicted: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]) -> float:
    """3-D Dice of two masks."""
    return float(2 * (predicted & wanted).sum() / (predicted.sum() + wanted.sum()))


def main(
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = PROJECT
    / "volume-output",
    axis: Annotated[str, typer.Option(help="axial, coronal or sagittal.")] = "axial",
    preset: Annotated[str | None, typer.Option(help="As for salip-ray label.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="As for salip-ray label.")
    ] = None,
) -> None:
    """Label the brain volume and score it in 3-D."""
    from salip_ray import pipeline

    source = real_data() / "brain_mri"
    if not source.is_dir():
        sys.exit(f"no real images: {source} does not exist. Set SALIP_REAL_DATA")
    # The mask is soft and next to its volume: each gets a folder, and brain is what is above 0.5.
    images, masks = output / "inputs" / "images", output / "inputs" / "masks"
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "single_subj_T1.nii", images / "brain.nii")
    soft = nibabel.load(source / "brainmask.nii")
    wanted = np.asarray(soft.dataobj) > 0.5
    nibabel.save(nibabel.Nifti1Image(wanted.astype(np.uint8), soft.affine), masks / "brain.nii")
    overrides = ["run.modes=[cascade, unprompted, gt_sam]", f"image.axis={axis}"]
    try:
        config = load_config("brain", preset=preset, overrides=[*overrides, *(assignments or ())])
        began = time.monotonic()
        summary = pipeline.label(images, output / axis, config, references=str(masks))
        wall = time.monotonic() - began
        labels = LabelOutput.open(str(output / axis))
        print(f"{summary.images} {axis} slices: {summary.status}, {summary.images / wall:.2f}/s")
        for method in _METHODS:
            for name, tidy in (("", Tidy()), (", largest component", Tidy(largest=True))):
                exported = output / f"{axis}-{method}{'-tidy' if name else ''}"
                export_nifti(labels, str(exported), method=method, tidy=tidy)
                predicted = np.asarray(nibabel.load(exported / "brain.nii.gz").dataobj) > 0
                print(f"{method}{name}: 3-D Dice {dice(predicted, wanted):.4f}")
    except SalipError as error:
        sys.exit(f"volume: {error}")


if __name__ == "__main__":
    typer.run(main)
