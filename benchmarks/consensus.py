"""Does the agreement of several models rank labels better than the confidence of one?

    python benchmarks/consensus.py          # writes benchmarks/results/consensus.md

Three models label the lungs of test phantoms and of the real films of ``benchmarks/realdata.py``:
the cascade, the cascade with another recipe (``image.long_side=192``), and a U-Net. The U-Net
learns from the outlines of 150 phantoms of the train bank, of indices that the bundled models never
saw; no model has seen a real film. Their votes are counted as ``salip-ray consensus`` counts them.
What was trained and labelled is cached in ``consensus-output/``.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import realdata
import torch
import typer
from confidence import real
from recipes import phantoms
from scipy.stats import spearmanr

from salip_ray import Cascade, load_config
from salip_ray.calibration.fit import Example, Figure, fit_class
from salip_ray.consensus.votes import count_votes
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import TARGETS, make_phantom
from salip_ray.output.masks import decode_rle, encode_rle
from salip_ray.schema import Image, Mask
from salip_ray.student.augmentation import augmented
from salip_ray.student.loop import TrainingRun
from salip_ray.student.network import Student
from salip_ray.student.options import StudentOptions
from salip_ray.student.samples import as_input, fit
from salip_ray.student.targets import IGNORED, Target
from salip_ray.student.unet import make_net

TASK, KIND = "lungs", "chest_xray"
RECIPES = {"cascade": (), "cascade, 192 px": ("image.long_side=192",)}
NET = "U-Net"
_FIRST, _PHANTOMS = 10_000, 150  # see student.py
_OPTIONS = StudentOptions(size=128, width=12, epochs=40)
_RESULTS = Path(__file__).with_name("results") / "consensus.md"
_UNKNOWN = (math.nan, math.nan, math.nan)
Label = tuple[Mask, float | None]  # with the confidence, if the model has one
Load = Callable[[], tuple[Image, Mask]]


def trained(file: Path) -> Student:
    """Return the U-Net, trained now or earlier."""
    if file.is_file():
        return Student.from_bytes(file.read_bytes(), str(file))
    options = _OPTIONS
    examples = [_example(index, options.size) for index in range(_FIRST, _FIRST + _PHANTOMS)]
    torch.manual_seed(options.seed)
    run = TrainingRun(make_net(1, options.width), options, torch.device("cpu"))

    def batches(epoch: int) -> Iterator[dict[str, torch.Tensor]]:
        order = np.random.default_rng((options.seed, epoch)).permutation(len(examples)).tolist()
        for start in range(0, len(order), options.batch_size):
            chosen = [
                augmented(*examples[i], np.random.default_rng((options.seed, epoch, i)))
                for i in order[start : start + options.batch_size]
            ]
            yield {
                "image": torch.stack([as_input(picture) for picture, _ in chosen]),
                "target": torch.from_numpy(np.stack([t.astype(np.int64) for _, t in chosen])),
                "confidence": torch.ones(len(chosen)),
            }

    for epoch in range(options.epochs):
        run.learn(batches(epoch))
        run.epochs_done += 1
        sys.stderr.write(f"\rU-Net: epoch {run.epochs_done} of {options.epochs}")
    sys.stderr.write("\n")
    student = Student(run.averaged.module.eval(), {TASK: 1}, options.size, options.width)
    file.write_bytes(student.to_bytes())
    return student


def _example(index: int, size: int) -> tuple[Image, Target]:
    """Return a phantom and the channel of each of its pixels, both [size, size]."""
    phantom = make_phantom(KIND, index, bank="train")
    picture = fit(phantom.image, size)
    height, width = picture.shape[:2]
    lungs = phantom.mask(TARGETS[KIND]).astype(np.int16)
    square, target = np.zeros((size, size, 3), np.uint8), np.full((size, size), IGNORED, np.int16)
    square[:height, :width] = picture
    target[:height, :width] = cv2.resize(lungs, (width, height), interpolation=cv2.INTER_NEAREST)
    return square, target


def models(folder: Path) -> dict[str, Callable[[Image], Label]]:
    """Return the models by name."""

    def by_cascade(cascade: Cascade, image: Image) -> Label:
        masks = cascade(image).masks
        if not masks:
            return np.zeros(image.shape[:2], np.bool_), None
        return masks[0].mask, masks[0].confidence

    def by_net(student: Student, image: Image) -> Label:
        return student(image)[TASK], None

    made: dict[str, Callable[[Image], Label]] = {
        name: partial(by_cascade, Cascade(load_config(TASK, overrides=list(recipe))))
        for name, recipe in RECIPES.items()
    }
    return {**made, NET: partial(by_net, trained(folder / "unet.safetensors"))}


def labelled(
    file: Path, items: Sequence[tuple[str, Load]], folder: Path
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the label of each model on each image, and the reference; cached in ``file``."""
    saved: dict[str, dict[str, dict[str, Any]]] = {}
    for line in file.read_text().splitlines() if file.is_file() else ():
        record = json.loads(line)
        saved[record["name"]] = record["labels"]
    left = [(name, load) for name, load in items if name not in saved]
    by_name = models(folder) if left else {}
    with file.open("a") as output:
        for number, (name, load) in enumerate(left, start=1):
            image, reference = load()
            labels = {"reference": {"rle": encode_rle(reference)}}
            for model, label in by_name.items():
                mask, confidence = label(image)
                labels[model] = {"rle": encode_rle(mask), "confidence": confidence}
            saved[name] = labels
            output.write(json.dumps({"name": name, "labels": labels}) + "\n")
            output.flush()
            sys.stderr.write(f"\r{file.stem}: {number} of {len(left)}")
    sys.stderr.write("\n")
    return {name: saved[name] for name, _ in items}


def lines_of(title: str, saved: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    """Yield the rows of one set: each model alone, then each combination."""
    names = list(saved)
    masks = {
        name: {model: decode_rle(item["rle"]) for model, item in labels.items()}
        for name, labels in saved.items()
    }
    references = [masks[name]["reference"] for name in names]
    known = [*RECIPES, NET]
    alone = {
        model: [dice(masks[name][model], masks[name]["reference"]) for name in names]
        for model in known
    }
    for model in known:
        figures = [saved[name][model].get("confidence") for name in names]
        yield f"{_row(title, model, alone[model], figures, names)} - | - |"
    for count in (2, 3):
        for chosen in itertools.combinations(known, count):
            of_images = [[masks[name][model] for model in chosen] for name in names]
            votes = [count_votes(of_image) for of_image in of_images]
            scores = [dice(v.agreed, r) for v, r in zip(votes, references, strict=True)]
            agreements = [vote.agreement for vote in votes]
            each = (_short(_rho(agreements, alone[model])) for model in chosen)
            shared = [_shared(m, r) for m, r in zip(of_images, references, strict=True)]
            row = _row(title, " + ".join(chosen), scores, agreements, names)
            yield f"{row} {', '.join(each)} | {np.mean(shared):.0%} |"


def _row(
    title: str,
    what: str,
    scores: Sequence[float],
    figures: Sequence[float | None],
    names: Sequence[str],
) -> str:
    """Return the cells that all rows have; images without a figure are left out of the last."""
    start = f"| {title} | {len(scores)} | {what} | {_short(float(np.mean(scores)))} |"
    pairs = [
        (name, figure, score)
        for name, figure, score in zip(names, figures, scores, strict=True)
        if figure is not None
    ]
    fitted = fit_class([Example(n, (f, *_UNKNOWN), s) for n, f, s in pairs])
    if fitted is None or fitted.before is None:
        return f"{start} - | - | - | - |"
    mean = _short(float(np.mean([figure for _, figure, _ in pairs])))
    before, after = fitted.before, fitted.after
    errors = f"{_short(before.error.value)} | {_short(after.error.value)}"
    return f"{start} {mean} | {_shown(before.rho)} | {errors} |"


def _rho(figures: Sequence[float], scores: Sequence[float]) -> float:
    return float(spearmanr(figures, scores).statistic)


def _shared(masks: Sequence[Mask], reference: Mask) -> float:
    """Return the share of the first model's wrong pixels that all models have wrong."""
    wrong = [mask ^ reference for mask in masks]
    return float(np.logical_and.reduce(wrong).sum() / max(1, wrong[0].sum()))


def _shown(figure: Figure) -> str:
    return f"{_short(figure.value)} ({_short(figure.low)} to {_short(figure.high)})"


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def main(
    output: Annotated[Path, typer.Option(help="Where labels are cached.")] = realdata.PROJECT
    / "consensus-output",
    count: Annotated[
        int, typer.Option("--phantoms", min=5, help="How many test phantoms are labelled.")
    ] = 20,
    results: Annotated[Path, typer.Option(help="The table.")] = _RESULTS,
) -> None:
    """Label lungs with three models, and tell how their agreement ranks the labels."""
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    sets: dict[str, Sequence[tuple[str, Load]]] = {}
    if realdata.real_data().is_dir():
        sets["real films"] = [(name, load) for task, name, load in real(output) if task == TASK]
    sets["test phantoms"] = [(item.name, item.load) for item in phantoms(KIND, "test", count)]
    rows = [
        line
        for title, items in sets.items()
        for line in lines_of(
            title, labelled(output / f"{title.replace(' ', '-')}.jsonl", items, output)
        )
    ]
    text = "\n".join([*_HEAD, *rows, "", *_FOOT]) + "\n"
    results.write_text(text)
    print(text)


_HEAD = (
    "# Consensus: does agreement rank labels?",
    "",
    "| images | n | labels by | Dice | confidence | rho with that Dice (95 %) | error "
    "| error, fitted | rho with each model | shared |",
    "| --- | ---: | --- | ---: | ---: | --- | ---: | ---: | --- | ---: |",
)
_FOOT = (
    "Lungs. In a row of one model the confidence is that of the cascade; a label that is left",
    "empty has none. In a row of several it is their agreement (mean Dice of all pairs), and the",
    "Dice is that of the pixels that more than half of them have. *rho*: Spearman's, with a",
    "bootstrap interval over images. *Error*: mean absolute difference of confidence and Dice;",
    "*fitted*: the same for labels that were left out of a fit, as `salip-ray calibrate` makes it.",
    "*rho with each model*: of the agreement with the Dice of each model alone. *Shared*: share of",
    "the pixels that the first model has wrong and all others, too; no agreement can show those.",
    "",
    "Written by `python benchmarks/consensus.py` (`make consensus`).",
)


if __name__ == "__main__":
    typer.run(main)
