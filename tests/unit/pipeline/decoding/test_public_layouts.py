"""Collections of docs/public-data.md: the page's commands list their images and nothing else."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest

from salip_ray.config import load_config
from salip_ray.pipeline.inputs import list_input
from salip_ray.sources.patterns import FileFilter
from tests.conftest import ROOT
from tests.dicom_series import write_slice
from tests.unit.cli.command_tree import parse

#: Input of a command -> files that it must list, and others that lie there, too.
LAYOUTS = {
    "./nih": (
        ["images_001/images/00000001_000.png", "images_012/images/00030805_000.png"],
        ["Data_Entry_2017.csv", "README_ChestXray.pdf", "images_001/cover.png"],
    ),
    "./mimic/files": (
        ["p10/p10000032/s50414267/a.jpg", "p19/p19999987/s58621812/b.jpg"],
        ["p10/p10000032/s50414267.txt", "p10/index.html", "p10/thumbnail.png"],
    ),
    "./training_set": (["000_HC.png", "010_2HC.png"], ["000_HC_Annotation.png"]),
    "./tcia": (
        ["C/P-1/S-1/series/1-01.dcm", "C/P-1/S-1/series/1-02.dcm"],
        ["C/LICENSE", "metadata.csv", "C/P-1/S-1/preview.png"],
    ),
    "./Reconstructed": (["CC0001_philips_15_55_M.nii.gz"], ["CC0001_philips_15_55_M_ss.nii.gz"]),
}


def command(location: str) -> dict:
    page = (ROOT / "docs" / "public-data.md").read_text()
    (line,) = re.findall(rf"^salip-ray label {re.escape(location)} .*$", page, re.MULTILINE)
    return parse(shlex.split(line))


def write(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in {".png", ".jpg"}:
        cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))
    elif path.suffix == ".dcm":
        write_slice(path, np.zeros((8, 8), np.int16), float(index), number=index)
    elif path.suffix == ".gz":
        nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)).to_filename(path)
    else:
        path.write_text("text")


@pytest.mark.parametrize("location", LAYOUTS)
def test_command_of_the_page_lists_images_and_nothing_else(location, tmp_path):
    images, others = LAYOUTS[location]
    for index, name in enumerate([*images, *others]):
        write(tmp_path / name, index)
    params = command(location)
    config = load_config(params["config"], overrides=params["assignments"] or ())
    selection = FileFilter(tuple(params["include"] or ()), tuple(params["exclude"] or ()))
    manifest = list_input(tmp_path, config, selection).manifest
    listed = {uri.removeprefix(f"{tmp_path}/") for uri in manifest.table["uri"].to_pylist()}
    assert listed == set(images)
