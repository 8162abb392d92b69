"""Does a student beat its teacher? ``make student``.

The teacher is the cascade with the bundled models. The student learns from the labels the cascade
gave to phantoms of the train bank (of indices that no bundled model was trained on). It starts with
the encoder of the bundled SAM, which was trained on the masks of other phantoms, or as a U-Net with
random weights. Both are scored on phantoms of the test bank and, if available, on the real images
(see realdata.py), whose references neither ever saw. Writes labels, the student and ``scores/`` to
``student-output/``; run it again to resume.

With ``--consensus``, a second student learns from labels on which three recipes of the cascade
agree, from the same images, and the two students are compared image by image.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from realdata import SETS, real_data
from recipes import ORGANS

from salip_ray.cli.demo import draw_phantoms
from salip_ray.cli.studies import Study, run_studies
from salip_ray.config import MODES, load_config
from salip_ray.consensus.job import make_consensus
from salip_ray.errors import SalipError
from salip_ray.evaluation.intervals import mean_interval
from salip_ray.output.layout import EVALUATION, STUDENT_SCORES
from salip_ray.pipeline import label
from salip_ray.student.scoring import METHOD

PROJECT = Path(__file__).resolve().parents[1]
_ALL_MODES = f"run.modes=[{', '.join(MODES)}]"
_OTHER_RECIPES = {
    "192px": ("image.long_side=192",),
    "boxes": ("image.long_side=224", "refine.box_jitter=4"),
}
_STUDENTS = ("student", "student-consensus")
_FIRST = 10_000  # the bundled models learnt from phantoms below 4,000 and from 100,000 on


def main(
    task: Annotated[str, typer.Option(help=f"One of {', '.join(ORGANS)}.")] = "lungs",
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = PROJECT
    / "student-output",
    train: Annotated[int, typer.Option(min=10, help="Phantoms to label and train on.")] = 300,
    test: Annotated[int, typer.Option(min=2, help="Phantoms to score on.")] = 60,
    network: Annotated[str, typer.Option(help="Of the student: sam or unet.")] = "sam",
    size: Annotated[int, typer.Option(help="Long side of the student's pictures.")] = 256,
    epochs: int = 15,
    workers: int = 1,
    consensus: Annotated[
        bool, typer.Option("--consensus", help="Train on the agreement of recipes, too.")
    ] = False,
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
    chosen = ("--network", network, "--size", size, "--epochs", epochs, "--workers", workers)
    shared = (*tests, *chosen, *(options or ()))
    _train(studies[0].output, here / _STUDENTS[0], *shared)
    if consensus:
        _train(_agreed(task, studies[0], here), here / _STUDENTS[1], *shared)
        for study in studies[1:]:
            print(_compared(here, study.output.name))


def _train(*arguments: object) -> None:
    """Run the job that trains and scores a student; exit if it fails."""
    command = [sys.executable, PROJECT / "jobs" / "train_student.py", *arguments]
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _agreed(task: str, study: Study, here: Path) -> Path:
    """Label the images of a study by the other recipes; return what all of them agree on."""
    runs = [study.output]
    for name, recipe in _OTHER_RECIPES.items():
        runs.append(here / f"{study.output.name}-{name}")
        label(study.images, runs[-1], load_config(task, overrides=list(recipe)))
    output = here / f"{study.output.name}-agreed"
    make_consensus([str(run) for run in runs], str(output))
    return output


def _compared(here: Path, test: str) -> str:
    """Return one line: Dice of both students on the images of a test, and the difference."""
    single, agreed = (_dice(here / name / STUDENT_SCORES / test) for name in _STUDENTS)
    images = sorted(single.keys() & agreed.keys())
    gains = [agreed[image] - single[image] for image in images]
    low, high = mean_interval(gains)
    means = (_mean([dice[image] for image in images]) for dice in (single, agreed))
    return "{}: {} images, student of single labels {:.4f}, of consensus {:.4f}, {}".format(
        test, len(images), *means, f"difference {_mean(gains):+.4f} ({low:+.4f} to {high:+.4f})"
    )


def _dice(folder: Path) -> dict[str, float]:
    """Return the student's Dice by image."""
    scores = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))["images"]
    return {
        score["image_id"]: score["dice"]
        for score in scores
        if score["method"] == METHOD and score["dice"] is not None
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _study(task: str, phantoms: Path, masks: Path, labels: Path) -> Study:
    config = load_config(task, overrides=[_ALL_MODES])
    return Study(config, phantoms / "images", masks, labels, "phantoms")


if __name__ == "__main__":
    typer.run(main)
