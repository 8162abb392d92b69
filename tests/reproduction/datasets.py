"""Tiny synthetic copies of the three datasets, in the layouts in which they are downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import nibabel
import numpy as np

from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.reproduction.prepared_files import END_SLICES

SIZE = 72  #: pixels of a side


def write_lungs(folder: Path) -> None:
    """Write seven chest X-rays with masks, and one without."""
    for name in ("CXR_png", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(8):
        phantom = make_phantom("chest_xray", index, bank="tune", size=SIZE)
        cv2.imwrite(str(folder / "CXR_png" / f"CHN_{index}.png"), phantom.image[..., ::-1])
        if index < 7:
            mask = phantom.mask("lungs").astype(np.uint8) * 255
            cv2.imwrite(str(folder / "masks" / f"CHN_{index}_mask.png"), mask)


def write_fetal_heads(folder: Path) -> None:
    """Write seven ultrasound images with annotated outlines."""
    folder.mkdir()
    for index in range(7):
        phantom = make_phantom("fetal_ultrasound", index, bank="tune", size=SIZE)
        mask = phantom.mask("fetal head").astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = cv2.drawContours(np.zeros_like(mask), contours, -1, 255, 1)
        cv2.imwrite(str(folder / f"{index:03d}_HC.png"), phantom.image[..., ::-1])
        cv2.imwrite(str(folder / f"{index:03d}_HC_Annotation.png"), outline)


def write_brains(folder: Path) -> None:
    """Write three volumes and their masks; the published loader keeps six slices of each."""
    for number in range(3):
        phantom = make_phantom("brain_mri", number, bank="tune", size=SIZE)
        # The loader turns a slice by a quarter: turned back here, the head is upright again.
        grey = np.rot90(phantom.image[..., 0], -1).astype(np.int16)
        mask = np.rot90(phantom.mask("brain"), -1).astype(np.uint8)
        used = 2 * END_SLICES + 6
        # Slices differ in brightness, and lack brain at both ends.
        voxels = np.stack([grey * 3 + slice_ for slice_ in range(used + 4)])
        brain = np.stack([mask * (2 <= slice_ < used + 2) for slice_ in range(used + 4)])
        for parent, name, values in (
            ("Original", f"CC{number:04d}", voxels),
            ("Silver-standard", f"CC{number:04d}_ss", brain.astype(np.uint8)),
        ):
            (folder / "Reconstructed" / parent / "GE_3").mkdir(parents=True, exist_ok=True)
            path = folder / "Reconstructed" / parent / "GE_3" / f"{name}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


#: Dataset -> what writes it, and its sentences in SaLIP's form (these are not SaLIP's own).
DATASETS: Mapping[str, tuple[Callable[[Path], None], Mapping[str, list[str]]]] = {
    "lungs": (write_lungs, {"lungs": ["the lungs on a chest X-ray", "two dark lung fields"]}),
    "fetal-head": (write_fetal_heads, {"fetal_head": ["the head of a fetus on ultrasound"]}),
    "brain": (write_brains, {"Brain": ["the brain on a slice of a head MR"]}),
}


def write_dataset(dataset: str, folder: Path) -> tuple[Path, Path]:
    """Write a dataset and its sentences; return both paths."""
    write, sentences = DATASETS[dataset]
    prompts = folder / f"{dataset}.json"
    prompts.write_text(json.dumps(sentences))
    write(folder / dataset)
    return folder / dataset, prompts
