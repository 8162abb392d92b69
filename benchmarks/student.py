"""Does a student beat its teacher? ``make student``.

The teacher is the cascade with the bundled models, the student a small U-Net that sees nothing but
the labels the cascade gave to phantoms of the train bank (of indices that no bundled model was
trained on). Both are scored on phantoms of the test bank and, if available, on the real
images (see realdata.py), whose references neither ever saw. Writes labels, the student and
``scores/`` to ``student-output/``; run it again to resume.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from realdata import SETS, real_data
from recipes import ORGANS

from salip_ray.cli.demo import draw_phantoms
from salip_ray.cli.studies import Study, run_studies
from salip_ray.config import MODES, load_config
from salip_ray.errors import SalipError

PROJECT = Path(__file__).resolve().parents[1]
_ALL_MODES = f"run.modes=[{', '.join(MODES)}]"
_FIRST = 10_000  # the bundled models were trained on phantoms below 3,000


def main(
    task: Annotated[str, typer.Option(help=f"One of {', '.join(ORGANS)}.")] = "lungs",
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = PROJECT
    / "student-output",
    train: Annotated[int, typer.Option(min=10, help="Phantoms to label and train on.")] = 150,
    test: Annotated[int, typer.Option(min=2, help="Phantoms to score on.")] = 60,
    size: Annotated[int, typer.Option(help="Long side of the student's pictures.")] = 128,
    epochs: int = 60,
    workers: int = 1,
    options: Annotated[
        list[str] | None, typer.Option("--option", help="More for train_student.py: --option=...")
    ] = None,
) -> None:
    """Label, train, score."""
    if task not in ORGANS:
        sys.exit(f"--task {task!r} must be one of {', '.join(ORGANS)}")
    here = output / task
    kind = ORGANS[task]
    draw_phantoms(kind, train, here / "train", bank="train", first=_FIRST)
    draw_phantoms(kind, test, here / "test", bank="test")
    studies = [
        _study(task, here / part, here / part / "masks", here / f"labels-{part}")
        for part in ("train", "test")
    ]
    folder, lay_out, subtitle = SETS[task]
    if (real_data() / folder).is_dir():
        images, references = lay_out(real_data() / folder, here / "real")
        studies.append(
            Study(
                load_config(task, overrides=[_ALL_MODES]),
                images,
                references,
                here / "labels-real",
                subtitle,
            )
        )
    else:
        print(f"no real images: {real_data() / folder} does not exist")
    try:
        run_studies(studies, here, heading="The teacher")
    except SalipError as error:
        sys.exit(f"student: {error}")
    tests = [
        part for s in studies[1:] for part in ("--test", s.output, "--references", s.references)
    ]
    command = [
        *(sys.executable, PROJECT / "jobs" / "train_student.py"),
        *(studies[0].output, here / "student", *tests),
        *("--size", size, "--epochs", epochs, "--workers", workers, *(options or ())),
    ]
    sys.exit(subprocess.run([str(part) for part in command], check=False).returncode)


def _study(task: str, phantoms: Path, masks: Path, labels: Path) -> Study:
    config = load_config(task, overrides=[_ALL_MODES])
    return Study(config, phantoms / "images", masks, labels, "phantoms")


if __name__ == "__main__":
    typer.run(main)
