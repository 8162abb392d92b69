"""The files that a reader of the pages has: phantoms in the layouts that the commands name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import nibabel
import numpy as np
from PIL import Image

from salip_ray.cli.demo import draw_phantoms
from salip_ray.models.bundled.phantoms import Phantom, make_phantom, make_volume
from salip_ray.output.masks import bbox_xywh, encode_rle
from tests.conftest import ROOT
from tests.dicom_series import write_slice

SLICES = 3  # of each volume
_MIDDLE = slice(22, 22 + SLICES)  # of 46: slices that show the brain


def write_files(folder: Path, xrays: int) -> None:
    """Write all of them; ``xrays`` is the number of images in the folder of that name."""
    draw_phantoms("chest_xray", xrays, folder)
    (folder / "images").rename(folder / "xrays")
    images = sorted((folder / "xrays").iterdir())
    shutil.copy(images[0], folder / "xray.png")
    listed = ["uri", *(f"xrays/{image.name}" for image in images[:2])]
    (folder / "images.csv").write_text("\n".join(listed) + "\n")
    (folder / "late.csv").write_text("\n".join([*listed, "late.png"]) + "\n")
    _write_public_layouts(folder, images[:2])
    _write_objects(folder, images)
    _write_volumes(folder)
    write_models(folder)
    draw_phantoms("chest_xray", 3, folder / "others", first=1000)
    draw_phantoms("brain_mri", 2, folder / "heads", complete=True)
    (folder / "heads/images").rename(folder / "mixed")
    shutil.copy(images[0], folder / "mixed")


def _write_public_layouts(folder: Path, images: list[Path]) -> None:
    """Write the collections of ``docs/public-data.md``, each with a file that is not labelled."""
    first, second = images
    mask = folder / "masks" / first.name
    jpeg = cv2.imread(str(first))
    patient = "mimic/files/p10/p10000032/s50414267"
    for source, name in (
        (first, "nih/images_001/images/00000001_000.png"),
        (second, "nih/images_002/images/00000002_000.png"),
        (mask, "nih/masks/00000001_000.png"),
        (first, "study/images/a.png"),
        (second, "study/images/b.png"),
        (mask, "study/images/a_mask.png"),
        (mask, "study/masks/b.png"),
        (mask, "training_set/000_HC_Annotation.png"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
    (folder / patient).mkdir(parents=True)
    cv2.imwrite(str(folder / patient / "02aa804e.jpg"), jpeg)
    shutil.copy(first, folder / patient / "preview.png")
    head = make_phantom("fetal_ultrasound", 0, bank="test", size=128)
    cv2.imwrite(str(folder / "training_set" / "000_HC.png"), head.image[..., ::-1])


def _write_objects(folder: Path, images: list[Path]) -> None:
    """Write boxes of the lungs, the lungs as COCO objects, and maps of object ids."""
    (folder / "ids").mkdir()
    entries, annotations = [], []
    for number, image in enumerate(images, start=1):
        mask = np.asarray(Image.open(folder / "masks" / image.name))
        count, parts = cv2.connectedComponents(mask)
        cv2.imwrite(str(folder / "ids" / image.name), parts.astype(np.uint8))
        height, width = mask.shape
        entries.append({"id": number, "file_name": image.name, "height": height, "width": width})
        for part in range(1, count):
            rle = encode_rle(parts == part)
            box = [float(value) for value in bbox_xywh(rle)]
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            annotations.append({**annotation, "bbox": box, "segmentation": rle, "iscrowd": 0})
    coco = {"images": entries, "annotations": annotations}
    coco["categories"] = [{"id": 1, "name": "lungs"}]
    for name in ("boxes.json", "instances.json"):
        (folder / name).write_text(json.dumps(coco))


def _write_volumes(folder: Path) -> None:
    """Write a head of a few slices as NIfTI and as a DICOM series, with its masks."""
    slices = make_volume(0, bank="test", size=128, slices=46)[_MIDDLE]
    _write_nifti(folder / "t1/brain.nii.gz", [phantom.image[..., 0] for phantom in slices])
    masks = [phantom.mask("brain").astype(np.uint8) for phantom in slices]
    _write_nifti(folder / "brain-masks/brain.nii.gz", masks)
    _write_nifti(folder / "Reconstructed/CC0001.nii.gz", [p.image[..., 0] for p in slices])
    _write_nifti(folder / "Reconstructed/CC0001_ss.nii.gz", masks)
    (folder / "volumes").mkdir()
    shutil.copy(folder / "t1/brain.nii.gz", folder / "volumes/case.nii.gz")
    _write_series(folder / "volumes/series", slices)


def _write_nifti(path: Path, slices: list[np.ndarray]) -> None:
    """Write slices [H, W], from below, on a grid of 1 x 1 x 3 mm."""
    path.parent.mkdir(exist_ok=True)
    volume = np.stack([picture.T[:, ::-1] for picture in slices], axis=2)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, 1.0, 3.0, 1.0])), path)


def _write_series(folder: Path, slices: tuple[Phantom, ...]) -> None:
    for number, phantom in enumerate(slices, start=1):
        greys = phantom.image[..., 0].astype(np.int16) * 4
        write_slice(folder / f"{number}.dcm", greys, 3.0 * number, number=number)


def write_models(folder: Path) -> None:
    """Write the files of ``docs/extending.md``: its models, and the task that names them."""
    text = (ROOT / "docs" / "extending.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    (folder / "mine.py").write_text(code)
    (task,) = re.findall(r"```yaml\n(# lungs-mine.yaml\n.*?)```", text, re.DOTALL)
    (folder / "lungs-mine.yaml").write_text(task)
