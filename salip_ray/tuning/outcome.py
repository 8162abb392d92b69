"""The results of a search: the best recipe as a task file, the table of trials, and a plot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from salip_ray.config import Config
from salip_ray.tuning.halving import Standing, ranking
from salip_ray.tuning.space import Recipe

_RECIPE = ("task", "image", "sam", "clip", "propose", "retrieve", "refine")
_WIDTH, _HEIGHT, _MARGIN = 640, 360, 52
_COLOURS = ("#bbbbbb", "#4477aa", "#228833", "#ee6677")


def task_file(best: Config, tuned_on: Sequence[str], comment: str) -> str:
    """Return a recipe as YAML for ``label --config``, complete, so that it needs no preset.

    Args:
        best: the recipe.
        tuned_on: ids of the images that chose it, which evaluations leave out.
        comment: the first line of the file.
    """
    data = best.model_dump(mode="json", include=set(_RECIPE))
    data["task"]["tuned_on"] = list(tuned_on)
    body = yaml.safe_dump({name: data[name] for name in _RECIPE}, sort_keys=False, width=100)
    return f"# {comment}\n{body}"


def table(recipes: Sequence[Recipe], standings: Mapping[int, Standing]) -> str:
    """Return all trials as CSV: Dice, number of images, and the values of each field.

    Trials on most images come first, the best of them at the top. The fields of the given recipe
    (0) are empty: it has the values of its configuration.
    """
    fields = list(dict.fromkeys(field for recipe in recipes for field in recipe.changes))
    order = sorted(
        recipes,
        key=lambda r: (
            -len(standings[r.number].scores),
            -_or_last(standings[r.number].dice),
            r.number,
        ),
    )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["trial", "dice", "images", "error", *fields])
    for recipe in order:
        standing = standings[recipe.number]
        dice = "" if math.isnan(standing.dice) else f"{standing.dice:.6f}"
        values = [recipe.changes.get(field, "") for field in fields]
        writer.writerow([recipe.number, dice, len(standing.scores), standing.error, *values])
    return buffer.getvalue()


def _or_last(dice: float) -> float:
    return -math.inf if math.isnan(dice) else dice


def plot(standings: Sequence[Standing], images: int) -> str:
    """Return an SVG with the mean Dice of each trial, coloured by its number of images.

    A line marks the given recipe. Trials are in the order in which they were drawn, which shows
    whether more trials would help.
    """
    scored = [s for s in standings if not math.isnan(s.dice)]
    steps = sorted({len(s.scores) for s in scored})
    low = math.floor(10 * min((s.dice for s in scored), default=0.0)) / 10
    last = max((s.number for s in standings), default=0) or 1

    def position(number: int, dice: float) -> tuple[float, float]:
        across = _MARGIN + (_WIDTH - 2 * _MARGIN) * number / last
        return across, _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (dice - low) / (1 - low or 1)

    body = [f'<text x="{_WIDTH / 2}" y="22" text-anchor="middle">Mean Dice of each trial</text>']
    for tick in range(6):
        value = low + (1 - low) * tick / 5
        _, y = position(0, value)
        body.append(f'<path d="M{_MARGIN},{y:.1f}H{_WIDTH - _MARGIN}" stroke="#dddddd"/>')
        body.append(f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for given in (s for s in scored if s.number == 0):
        _, y = position(0, given.dice)
        body.append(f'<path d="M{_MARGIN},{y:.1f}H{_WIDTH - _MARGIN}" stroke="#000000"/>')
        body.append(f'<text x="{_WIDTH - _MARGIN}" y="{y - 5:.1f}" text-anchor="end">given</text>')
    best = ranking([s for s in scored if len(s.scores) == images])[:1]
    for standing in scored:
        x, y = position(standing.number, standing.dice)
        colour = _COLOURS[min(steps.index(len(standing.scores)), len(_COLOURS) - 2)]
        size, colour = (6, _COLOURS[-1]) if standing in best else (4, colour)
        words = f"trial {standing.number}: {standing.dice:.3f} on {_images(len(standing.scores))}"
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}">'
            f"<title>{words}</title></circle>"
        )
    legend = [*(_images(step) for step in steps), "best"]
    for index, words in enumerate(legend):
        colour = _COLOURS[-1 if index == len(steps) else min(index, len(_COLOURS) - 2)]
        x = _MARGIN + 120 * index
        body.append(f'<circle cx="{x}" cy="{_HEIGHT - 18}" r="5" fill="{colour}"/>')
        body.append(f'<text x="{x + 10}" y="{_HEIGHT - 14}">{words}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return head + "".join(body) + "</svg>\n"


def summary(
    job: Mapping[str, Any],
    recipes: Sequence[Recipe],
    standings: Mapping[int, Standing],
    images: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the content of ``tuning.json``: the job, its images with their Dice, and the best."""
    full = [s for s in standings.values() if len(s.scores) == len(images)]
    best = ranking(full)[0]
    return {
        "schema_version": 1,
        "job": dict(job),
        "images": [
            {
                **image,
                "untuned": _plain(standings[0].scores[index]),
                "tuned": _plain(best.scores[index]),
            }
            for index, image in enumerate(images)
        ],
        "untuned": {"dice": standings[0].dice},
        "best": {
            "trial": best.number,
            "dice": best.dice,
            "changes": dict(recipes[best.number].changes),
        },
        "note": "these images chose the recipe: their Dice is not a test result",
    }


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _plain(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {label: None if math.isnan(value) else value for label, value in scores.items()}
