"""The commands of every page that needs a job run in order, as a reader would give them.

Each page has a separate folder, with phantoms in the layouts that its commands name, and all jobs
join one Ray. The commands of other pages run in ``tests/unit/cli/test_documented_commands.py``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from tests.conftest import BIN, ROOT
from tests.infra.test_docs import PAGES, marked_lines
from tests.packaging.reader_files import SLICES, write_files
from tests.unit.cli.test_documented_commands import JOBS, OTHER_OUTPUTS

#: Images in the folder ``xrays``; a fit of confidences needs ten.
IMAGES = {"labels": 12, "train": 8}
FEW = 3

#: What a page takes for granted, as commands.
BEFORE = {
    "labels": (
        "salip-ray demo --images 2 --kind chest_xray",
        "salip-ray label ./xrays ./labels --config lungs",
    ),
    "reliability": ("salip-ray label late.csv labels --config lungs --set run.max_error_share=1",),
    "train": (
        "salip-ray label ./xrays ./labels --config lungs",
        "salip-ray label ./others/images ./test-labels --config lungs",
    ),
    "viewers": ("salip-ray label ./volumes ./labels --config brain",),
}

#: Words of the commands of a page -> what the folder has.
STANDS_FOR: dict[str, dict[str, str]] = {
    "label": {"INPUT": "./xrays", "OUTPUT": "./labels-first"},
    "labels": {
        "IMAGES": "./xrays",
        "REFERENCES": "./masks",
        "ALL_IMAGES": "./xrays",
        "LABELS": "./labels-tuned",
        "ID_MAPS": "./ids",
        # A search of 50 recipes on 20 images takes an hour.
        "--trials 50": "--trials 3",
        "--images 20": "--images 4",
    },
    "reliability": {"s3://out/labels": "./labels"},
    "train": {
        "LABELS": "./labels",
        "TEST_LABELS": "./test-labels",
        "MASKS": "./others/masks",
        "jobs/train_student.py": f"{ROOT}/jobs/train_student.py --epochs 2 --size 64",
    },
    "viewers": {"LABELS": "./labels"},
}

#: Outputs of the jobs of a page -> how many rows have which status.
ROWS: dict[str, dict[str, dict[str, int]]] = {
    "README": {"labels": {"ok": FEW}},
    "index": {"labels": {"ok": FEW}},
    "extending": {"labels": {"ok": FEW}},
    "formats": {"labels": {"ok": SLICES}},
    "label": {
        "labels-first": {"ok": FEW},
        "labels-sample": {"ok": FEW},
        "labels-study": {"ok": 2},
        "labels": {"ok": FEW},
        "labels-listed": {"ok": 2},
        "labels-boxes": {"ok": FEW},
        "labels-more": {"ok": FEW},
        "labels-chosen": {"ok": FEW},
    },
    "labels": {
        "labels-a": {"ok": 12},
        "labels-b": {"ok": 12},
        "agreed": {"ok": 12},
        "votes": {"ok": 12},
        "agreed-with-masks": {"ok": 12},
        "labels-tuned": {"ok": 12},
    },
    "public-data": {
        "labels-nih": {"ok": 2},
        "labels-mimic": {"ok": 1},
        "labels-hc18": {"ok": 1},
        "labels-cc359": {"ok": SLICES},
    },
    "recipe": {"labels": {"ok": 1, "empty": 2}},  # an X-ray, and a head with a low confidence
    "reliability": {"labels": {"ok": 3}},  # the last one by the retry
    "train": {},
    "viewers": {"labels": {"ok": 2 * SLICES}},
}

#: Files that the commands of a page write: pattern -> number.
FILES: dict[str, dict[str, int]] = {
    "index": {"labels/report.html": 1, "label-maps/**/*.png": FEW},
    "extending": {"xray.walk.png": 1},
    "formats": {"label-volumes/brain.nii.gz": 1, "tidied/brain.nii.gz": 1},
    "labels": {
        "scores/evaluation.json": 1,
        "scores/summary_nnunet.json": 1,
        "labels/calibration.json": 1,
        "agreed/review.html": 1,
        "tuned/tuning.json": 1,
        "tuned/tuned.yaml": 1,
        "tuned/trials.csv": 1,
        "tuned/tuning.svg": 1,
        "DEST*/annotations/instances_train.json": 1,
        "DEST*/chest_xray-*.png": 12,
        "nnUNet_raw*/Dataset501_lungs/labelsTr/*.png": 12,
        "DEST*/train-*.tar": 1,
        "DEST*/data/train-*.parquet": 1,
        "DEST*/labels/*/*.txt": 12,
        "DEST*/labelsTr/*.png": 12,
    },
    "train": {
        "STUDENT/student.safetensors": 1,
        "STUDENT/student.json": 1,
        "STUDENT/images.parquet": 1,
        "STUDENT/history.json": 1,
        "STUDENT/scores/*/evaluation.json": 1,
        "nnUNet_raw*/Dataset501_lungs/labelsTr/*.png": 8,
        "DEST*/labelsTr/*.png": 8,
        "DEST*/labels/*/*.txt": 8,
        "DEST*/data/train-*.parquet": 1,
    },
    "viewers": {
        "EXPORT*/case.nii.gz": 1,
        "EXPORT*/*.nii.gz": 2,
        "EXPORT*/labels.itksnap.txt": 1,
        "EXPORT*/labels.ctbl": 1,
        "EXPORT*/*.dcm": 1,
    },
}


def commands(page: Path) -> list[list[str]]:
    """Return the words of the commands of a page that are not marked."""
    programs = {"salip-ray", "python", "export"}
    lines = [words for words, mark in marked_lines(page) if not mark]
    return [words for words in lines if words[0] in programs]


def needs_job(words: list[str]) -> bool:
    return words[0] == "python" or (words[0] == "salip-ray" and words[1] in JOBS)


CHOSEN = [
    page
    for page in PAGES
    if page.stem in OTHER_OUTPUTS or any(needs_job(words) for words in commands(page))
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reader") / "files"
    folder.mkdir()
    write_files(folder, max(IMAGES.values()))
    return folder


@pytest.fixture
def folder(files, tmp_path, request) -> Path:
    """The current folder of the commands of a page."""
    page = request.getfixturevalue("page").stem
    folder = shutil.copytree(files, tmp_path / page)
    for image in sorted((folder / "xrays").iterdir())[IMAGES.get(page, FEW) :]:
        image.unlink()
    return folder


class Reader:
    """Gives commands in the current folder, in an environment that the page may change.

    ``salip-ray`` runs in this process, because a new one imports torch for as long as a job of few
    images takes. In an environment of the page, and for other programs, it is a process.
    """

    def __init__(self) -> None:
        self.exported: dict[str, str] = {}

    def run(self, words: list[str]) -> None:
        """Run a command; it must succeed and say something."""
        if words[0] == "export":
            self.exported.update(word.split("=", 1) for word in words[1:])
        elif words[0] == "salip-ray" and not self.exported:
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}\n{done.exception}"
            assert done.output, f"{shlex.join(words)} printed nothing"
        else:
            self._run_process(words)

    def _run_process(self, words: list[str]) -> None:
        import ray

        paths = [self.exported.get("PYTHONPATH", ""), str(ROOT)]
        environment = {
            **os.environ,
            **self.exported,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(filter(None, paths)),
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        }
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
        assert done.stdout + done.stderr, f"{shlex.join(words)} printed nothing"


def as_in(page: str, words: list[str], number: int) -> list[str]:
    """Return a command with the names of the folder; each export gets a new one."""
    line = f" {shlex.join(words)} "
    new = {name: f"{name}-{number}" for name in ("DEST", "nnUNet_raw", "EXPORT")}
    for name, meant in {**new, **STANDS_FOR.get(page, {})}.items():
        line = line.replace(f" {name} ", f" {meant} ")
    return shlex.split(line)


def rows(output: Path) -> dict[str, int]:
    """Return the number of rows of an output by status."""
    return dict(Counter(pq.read_table(output / "shards", columns=["status"])["status"].to_pylist()))


@pytest.mark.slow
@pytest.mark.parametrize("page", CHOSEN, ids=lambda page: page.stem)
def test_commands_of_the_page_run_in_order(page, folder, local_ray, monkeypatch):
    monkeypatch.chdir(folder)
    name, reader = page.stem, Reader()
    for line in BEFORE.get(name, ()):
        reader.run(shlex.split(line))
    if name == "reliability":  # the store has the image again
        assert rows(folder / "labels") == {"ok": 2, "error": 1}
        shutil.copy(folder / "xray.png", folder / "late.png")
    for number, words in enumerate(commands(page)):
        reader.run(as_in(name, words, number))
    assert {out: rows(folder / out) for out in ROWS[name]} == ROWS[name]
    written = {name: len([*folder.glob(name)]) for name in FILES.get(name, {})}
    assert written == FILES.get(name, {})


def test_every_page_with_a_job_has_its_rows_counted():
    assert {page.stem for page in CHOSEN} == set(ROWS)
    assert set(BEFORE) | set(STANDS_FOR) | set(FILES) | set(IMAGES) <= set(ROWS)


@pytest.mark.parametrize("page", CHOSEN, ids=lambda page: page.stem)
def test_rows_of_every_labelled_output_are_counted(page):
    lines = [as_in(page.stem, words, number) for number, words in enumerate(commands(page))]
    made = {str(Path(words[3])) for words in lines if words[:2] == ["salip-ray", "label"]}
    assert made <= set(ROWS[page.stem])


@pytest.mark.parametrize("page", CHOSEN, ids=lambda page: page.stem)
def test_stand_ins_are_on_the_page(page):
    lines = [f" {shlex.join(words)} " for words in commands(page)]
    for name in STANDS_FOR.get(page.stem, {}):
        assert any(f" {name} " in line for line in lines), name
