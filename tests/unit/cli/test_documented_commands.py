"""The commands of the pages that read an output or one image run, unless they are marked.

A folder holds what the commands name. Those in :data:`JOBS` start Ray or need a complete job:
``tests/packaging/test_documented_pages.py`` runs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.models.bundled.phantoms import make_phantom, make_volume
from tests.infra.test_docs import PAGES, PLACEHOLDERS, RUN_ELSEWHERE, marked_lines
from tests.packaging.reader_files import write_models
from tests.unit.datasets.conftest import CONFIDENCES, draw, write_output

#: Commands that start Ray or need a complete job.
JOBS = {"label", "tune", "demo", "retry", "plan", "consensus", "status", "verify", "doctor"}
#: What stands for something else on the pages -> what the folder has.
STANDS_FOR = {"OUTPUT": "labels", "LABELS": "labels", "./labels": "labels"}
STANDS_FOR |= {"s3://out/labels": "labels", "./agreed": "labels"}
#: Pages whose commands need volumes.
OTHER_OUTPUTS = {"formats", "viewers"}


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of the commands of a page that run here."""
    lines = [words for words, mark in marked_lines(page) if not mark and words[0] == "salip-ray"]
    here = [words for words in lines if " ".join(words) not in RUN_ELSEWHERE]
    return [w[1:] for w in here if w[1] not in JOBS and not PLACEHOLDERS & {*w}]


CHOSEN = [
    pytest.param(page.stem, lines, id=page.stem)
    for page in PAGES
    if page.stem not in OTHER_OUTPUTS and (lines := commands(page))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """The current folder of the commands: an output, masks, images and models of the pages."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        write_output(Path())
        Path("masks").mkdir()
        for index in range(len(CONFIDENCES)):
            _, left, right = draw(index)
            cv2.imwrite(f"masks/view{index}.png", (left + 2 * right).astype(np.uint8))
        shutil.copytree("labels", "demo-output/chest")
        shutil.copytree("masks", "demo-output/phantoms/chest/masks")
        cv2.imwrite("xray.png", make_phantom("chest_xray", 0, bank="test", size=64).image)
        slices = make_volume(0, bank="test", size=64, slices=46)
        volume = np.stack([phantom.image[:, :, 0] for phantom in slices], axis=2)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), "brain.nii.gz")
        write_models(Path())
        yield folder


@pytest.mark.parametrize(("page", "lines"), CHOSEN)
def test_commands_of_the_page_run(page, lines, folder):
    for number, words in enumerate(lines):
        # An export needs a new folder; its corrections come back from the last one.
        at = number - (words[0] == "import-review")
        new = {name: f"{name}-{page}-{at}" for name in ("DEST", "nnUNet_raw")}
        given = [new.get(word, STANDS_FOR.get(word, word)) for word in words]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, f"{' '.join(given)}\n{done.output}"
