"""Fit the labels' confidence on phantoms of the tune bank, and measure it where it was not fitted.

    python benchmarks/confidence.py            # fit, measure, write confidence-output/
    python benchmarks/confidence.py --ship     # the same, and put the fit into the package

Three sets are labelled by the cascade, image by image in this process: phantoms of the ``tune``
bank (the only ones that the model is fitted on), phantoms of the ``test`` bank, and the real images
of ``benchmarks/realdata.py`` where they are at hand. For each is shown: Spearman's rank
correlation of confidence and Dice, the mean absolute error, and the mean Dice of the rest if the
least confident 20 % are dropped. ``reliability.png`` draws expected against true Dice. What is
labelled is cached in ``confidence-output/`` as long as the recipe is the same.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import realdata
import typer
from recipes import ORGANS
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from salip_ray import Cascade, load_config
from salip_ray.cascade import confidence
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import TARGETS, make_phantom
from salip_ray.models.weights import identify
from salip_ray.schema import Image, ImageRef, Mask
from salip_ray.sources.decode import decode
from salip_ray.sources.references import References

DROPPED = 0.2
_BINS = 5
_HEADINGS = ("labels", "rho", "MAE", "bias", "Dice", "of best 80 %", "worst", "of best 80 %")
_COLOURS = {"lungs": (60, 60, 200), "brain": (60, 140, 40), "fetal_head": (190, 110, 20)}  # BGR


@dataclass(frozen=True)
class Case:
    """One label: its task, what the confidence is made of, and its true Dice."""

    task: str
    name: str
    features: tuple[float, ...]
    dice: float


def phantoms(bank: str, count: int) -> Iterator[tuple[str, str, Image, Mask]]:
    for task, kind in ORGANS.items():
        for index in range(count):
            phantom = make_phantom(kind, index, bank=bank)
            yield task, f"{kind}-{index:04d}", phantom.image, phantom.mask(TARGETS[kind])


def real(folder: Path) -> Iterator[tuple[str, str, Image, Mask]]:
    for task, (name, lay_out, _) in realdata.SETS.items():
        images, masks = lay_out(realdata.real_data() / name, folder / "inputs" / task)
        references = References.open(str(masks))
        limits = load_config(task).image
        for path in _listed(images):
            mask = references.load(references.find(ImageRef(str(path)))) > 0
            yield task, path.name, decode(path.read_bytes(), str(path), limits), mask


def _listed(images: Path) -> list[Path]:
    if images.is_dir():
        return sorted(images.iterdir())
    return [Path(line) for line in images.read_text().replace('"', "").splitlines()[1:]]


def labelled(name: str, items: Iterator[tuple[str, str, Image, Mask]], folder: Path) -> list[Case]:
    """The cases of a set, labelled now or read where the same recipe did so before."""
    recipes = {task: load_config(task) for task in ORGANS}
    key = json.dumps(
        {task: [config.recipe(), identify(config)] for task, config in recipes.items()},
        sort_keys=True,
        default=str,
    )
    file = folder / f"{name}.json"
    if file.is_file() and (saved := json.loads(file.read_text()))["recipes"] == key:
        return [Case(**{**case, "features": tuple(case["features"])}) for case in saved["cases"]]
    cascades: dict[str, Cascade] = {}
    cases = []
    for task, image_name, image, reference in items:
        if task not in cascades:
            cascades[task] = Cascade(load_config(task))
        result = cascades[task](image)
        cases += [
            Case(
                task,
                image_name,
                tuple(getattr(mask, feature) for feature in confidence.FEATURES),
                dice(mask.mask, reference),
            )
            for mask in result.masks
        ]
        sys.stderr.write(f"\r{name}: {len(cases)}")
    sys.stderr.write("\n")
    data = {"recipes": key, "cases": [vars(case) for case in cases]}
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))
    return cases


def matrix(cases: list[Case]) -> npt.NDArray[np.float64]:
    results = np.array([case.features for case in cases], np.float64)
    return np.where(np.isnan(results), np.nanmin(results, axis=0), results)


def measured(cases: list[Case], expected: list[float]) -> dict[str, Any]:
    """The figures of one set or task."""
    true = np.array([case.dice for case in cases])
    guess = np.array(expected)
    remaining = np.argsort(guess, kind="stable")[math.floor(DROPPED * len(guess)) :]
    return {
        "labels": len(cases),
        "spearman": round(float(spearmanr(guess, true).statistic), 3),
        "mean_absolute_error": round(float(np.abs(guess - true).mean()), 3),
        "bias": round(float((guess - true).mean()), 3),
        "dice_all": round(float(true.mean()), 3),
        "dice_without_lowest_20_percent": round(float(true[remaining].mean()), 3),
        "worst_dice_all": round(float(true.min()), 3),
        "worst_dice_kept": round(float(true[remaining].min()), 3),
    }


def draw(sets: dict[str, tuple[list[Case], list[float]]], file: Path) -> None:
    """Expected against true Dice, a panel a set: each label, and means of equal-sized bins."""
    side, edge = 360, 46
    panels = []
    for title, (cases, expected) in sets.items():
        panel = np.full((side + 2 * edge, side + 2 * edge, 3), 255, np.uint8)

        def at(x: float, y: float) -> tuple[int, int]:
            return edge + round(x * side), edge + round((1 - y) * side)

        for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
            cv2.line(panel, at(tick, 0), at(tick, 1), (230, 230, 230), 1)
            cv2.line(panel, at(0, tick), at(1, tick), (230, 230, 230), 1)
            _text(panel, f"{tick:g}", (at(tick, 0)[0] - 10, side + edge + 16))
            _text(panel, f"{tick:g}", (edge - 34, at(0, tick)[1] + 4))
        cv2.line(panel, at(0, 0), at(1, 1), (150, 150, 150), 1, cv2.LINE_AA)
        for case, guess in zip(cases, expected, strict=True):
            cv2.circle(panel, at(guess, case.dice), 3, _COLOURS[case.task], 1, cv2.LINE_AA)
        order = np.argsort(expected, kind="stable")
        means = [
            (
                float(np.mean([expected[i] for i in part])),
                float(np.mean([cases[i].dice for i in part])),
            )
            for part in np.array_split(order, _BINS)
        ]
        for one, other in itertools.pairwise(means):
            cv2.line(panel, at(*one), at(*other), (0, 0, 0), 2, cv2.LINE_AA)
        for mean in means:
            cv2.circle(panel, at(*mean), 6, (0, 0, 0), -1, cv2.LINE_AA)
        _text(panel, title, (edge, 18), 0.5)
        _text(panel, "confidence", (edge + side // 2 - 34, side + 2 * edge - 12))
        _text(panel, "Dice", (edge + 4, edge + 14))
        for row, (task, colour) in enumerate(_COLOURS.items()):
            _text(panel, task, (edge + 10, edge + 40 + 16 * row), colour=colour)
        panels.append(panel)
    cv2.imwrite(str(file), np.hstack(panels))


def _text(
    panel: Image,
    text: str,
    at: tuple[int, int],
    size: float = 0.4,
    colour: tuple[int, int, int] = (40, 40, 40),
) -> None:
    cv2.putText(panel, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def main(
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = realdata.PROJECT
    / "confidence-output",
    tune: Annotated[int, typer.Option(min=10, help="Tune phantoms of each kind to fit on.")] = 60,
    test: Annotated[int, typer.Option(min=5, help="Test phantoms of each kind.")] = 40,
    ship: Annotated[bool, typer.Option(help="Write the fit into the package.")] = False,
) -> None:
    """Fit the confidence on the tune bank and measure it on the test bank and on real images."""
    sets = {"tune": labelled("tune", phantoms("tune", tune), output)}
    model = confidence.fit(matrix(sets["tune"]), [case.dice for case in sets["tune"]])
    sets["test"] = labelled("test", phantoms("test", test), output)
    if realdata.real_data().is_dir():
        sets["real"] = labelled("real", real(output), output)
    expected = {name: [model(*case.features) for case in cases] for name, cases in sets.items()}
    figures: dict[str, Any] = {}
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "set",
        "task",
        "labels",
        "rho",
        "MAE",
        "bias",
        "Dice",
        "Dice, best 80 %",
        "worst",
        "worst of the rest",
    ):
        table.add_column(heading, justify="left" if heading in {"set", "task"} else "right")
    for name, cases in sets.items():
        for task in ("all", *dict.fromkeys(case.task for case in cases)):
            chosen = [i for i, case in enumerate(cases) if task in {"all", case.task}]
            results = measured([cases[i] for i in chosen], [expected[name][i] for i in chosen])
            figures.setdefault(name, {})[task] = results
            table.add_row(name, task, *(str(value) for value in results.values()))
    titles = {
        "tune": "tune phantoms (fitted on)",
        "test": "test phantoms (never seen)",
        "real": "real images (never seen)",
    }
    draw({titles[n]: (sets[n], expected[n]) for n in sets}, output / "reliability.png")
    (output / "confidence-figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    about = {
        "fitted_on": f"{len(sets['tune'])} labels of phantoms 0 to {tune - 1} of the tune bank",
        "made_by": "benchmarks/confidence.py --ship",
    }
    (output / "confidence.json").write_text(model.to_json(about))
    if ship:
        Path(confidence.__file__).with_name("confidence.json").write_text(model.to_json(about))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
