"""Label and score real images with the default models, zero-shot: ``make realdata``.

Three tasks on images that no model of this package was trained or tuned on:

    fetal_head   50 ultrasound images of HC18 with the head's outline
    lungs        20 chest X-rays with lung masks
    brain        all axial slices of one T1 volume with a brain mask, also those without brain

The images are not part of the project: their folder is ``$SALIP_REAL_DATA``, else
``../shared/data`` next to the checkout. Writes ``evaluation.json``, with the figures of each image,
and ``overview.png`` to ``realdata-output/`` and prints the means. Run it again to resume; if
all images are labelled, it only scores them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.csv
import typer
from PIL import Image

from salip_ray.cli.studies import Study, run_studies
from salip_ray.config import MODES, load_config
from salip_ray.errors import SalipError

PROJECT = Path(__file__).resolve().parents[1]
_STRETCH = (0.5, 99.5)  # percentiles of the whole volume


def real_data() -> Path:
    """Return the folder of real images; it may not exist."""
    return Path(os.environ.get("SALIP_REAL_DATA") or PROJECT.parent / "shared" / "data").resolve()


def slice_brain(source: Path, inputs: Path) -> tuple[Path, Path]:
    """Write the axial slices of the brain volume as grey PNGs; returns image and mask folders.

    The volume is brought to canonical axes (x grows to the patient's right, y to the front, z up;
    stored, its x runs the other way), and each axial slice drawn as a radiologist sees it: the nose
    up, the patient's right on the picture's left. Intensities are scaled once for the whole volume,
    so slices stay comparable. The mask goes the same way.
    """
    volume = nibabel.as_closest_canonical(nibabel.load(source / "single_subj_T1.nii"))
    mask = nibabel.as_closest_canonical(nibabel.load(source / "brainmask.nii"))
    if volume.shape != mask.shape or not np.allclose(volume.affine, mask.affine):
        sys.exit(f"{source}: volume and mask are not on the same grid")
    values = np.asarray(volume.dataobj, np.float64)
    brain = np.asarray(mask.dataobj, np.float64) > 0.5
    low, high = np.percentile(values, _STRETCH)
    grey = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    folders = inputs / "images", inputs / "masks"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for z in range(grey.shape[2]):
        if grey[:, :, z].min() == grey[:, :, z].max():
            continue  # the run leaves blank slices empty
        for folder, slices in zip(
            folders, (grey, np.where(brain, 255, 0).astype(np.uint8)), strict=True
        ):
            # [x, y] with x to the patient's right and y forward -> [row, column].
            picture = slices[::-1, ::-1, z].T
            Image.fromarray(np.ascontiguousarray(picture)).save(folder / f"slice-{z:03d}.png")
    return folders


def listed(source: Path, inputs: Path) -> tuple[Path, Path]:
    """Images and references of a folder with an ``index.csv``, as a manifest of its images."""
    index = pyarrow.csv.read_csv(source / "index.csv")
    uris = [str(source / "images" / name) for name in index["image"].to_pylist()]
    inputs.mkdir(parents=True, exist_ok=True)
    manifest = inputs / "manifest.csv"
    pyarrow.csv.write_csv(pa.table({"uri": uris}), manifest)
    return manifest, source / "index.csv"


def limited(images: Path, limit: int | None) -> Path:
    """Return a manifest of ``limit`` images of a folder or manifest, evenly spread."""
    if limit is None:
        return images
    if images.is_dir():
        uris = sorted(str(path) for path in images.iterdir())
        manifest = images.parent / f"manifest-{limit}.csv"
    else:
        uris = pyarrow.csv.read_csv(images)["uri"].to_pylist()
        manifest = images.with_name(f"manifest-{limit}.csv")
    chosen = sorted({round(i) for i in np.linspace(0, len(uris) - 1, min(limit, len(uris)))})
    pyarrow.csv.write_csv(pa.table({"uri": [uris[i] for i in chosen]}), manifest)
    return manifest


#: Task -> folder of its data, how to lay it out, and what the images are in words.
SETS: dict[str, tuple[str, Callable[[Path, Path], tuple[Path, Path]], str]] = {
    "lungs": ("chest_xray", listed, "chest X-rays, pneumonia"),
    "brain": ("brain_mri", slice_brain, "T1 MR, axial slices"),
    "fetal_head": ("fetal_head", listed, "fetal ultrasound, HC18"),
}


def main(
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = PROJECT
    / "realdata-output",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many images of each task, evenly spread.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help=f"Only: {', '.join(SETS)}.")] = None,
    preset: Annotated[str | None, typer.Option(help="As for salip-ray label.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="As for salip-ray label.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,
) -> None:
    """Label the real images with the default models and score them."""
    data = real_data()
    tasks = task or list(SETS)
    if unknown := set(tasks) - set(SETS):
        sys.exit(f"--task {sorted(unknown)[0]!r} must be one of {', '.join(SETS)}")
    missing = [SETS[name][0] for name in tasks if not (data / SETS[name][0]).is_dir()]
    if missing:
        sys.exit(
            f"no real images: {data / missing[0]} does not exist. "
            "Set SALIP_REAL_DATA to the folder that holds it"
        )
    studies = []
    overrides = [f"run.modes=[{', '.join(MODES)}]", *(assignments or ())]
    try:
        for name in tasks:
            folder, lay_out, subtitle = SETS[name]
            images, references = lay_out(data / folder, output / "inputs" / name)
            studies.append(
                Study(
                    config=load_config(name, preset=preset, overrides=overrides),
                    images=limited(images, limit),
                    references=references,
                    output=output / name,
                    subtitle=subtitle,
                )
            )
        run_studies(studies, output, heading="Zero-shot on real images", quiet=quiet)
    except SalipError as error:
        sys.exit(f"realdata: {error}")


if __name__ == "__main__":
    typer.run(main)
