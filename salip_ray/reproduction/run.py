"""Run a reproduction: the published search and run, our search and run, and the table.

Each step is an ordinary job with an output below that of the reproduction, so that a run that was
stopped resumes where it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from salip_ray.config import Config
from salip_ray.models.identity import identify
from salip_ray.output import layout
from salip_ray.output.claim import Record, claim_or_resume
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store import Store
from salip_ray.pipeline.job import label
from salip_ray.pipeline.shared_session import shared_session
from salip_ray.planning.profile import Profile, measure
from salip_ray.planning.sizing import size
from salip_ray.reproduction.layouts import Listing, Prepared, prepare
from salip_ray.reproduction.protocol import (
    PROTOCOLS,
    TRIALS,
    Protocol,
    Settings,
    make_settings,
)
from salip_ray.reproduction.scoring import (
    Figure,
    mean_of,
    own_figures,
    published_figures,
)
from salip_ray.reproduction.table import figures_csv, markdown
from salip_ray.sources.locations import join, normalise
from salip_ray.sources.references import References
from salip_ray.tuning.search import tune
from salip_ray.tuning.space import Recipe, default_space, with_changes
from salip_ray.wording import counted

_MEASURED = 2  # images, to estimate the time
Report = Callable[[str], None]


@dataclass(frozen=True)
class Reproduction:
    """A claimed output and all that its steps need.

    Attributes:
        protocol: of the dataset.
        settings: configurations.
        images: the prepared dataset.
        store: the output.
        seed: of both searches.
        quiet: show no progress of jobs.
        report: called with lines for the user.
    """

    protocol: Protocol
    settings: Settings
    images: Prepared
    store: Store
    seed: int
    quiet: bool
    report: Report

    def at(self, name: str) -> str:
        """Return the location of the output of a step."""
        return join(self.store.location, name)


def reproduce(
    dataset: str,
    data: Path,
    output: str,
    *,
    weights: str | None,
    prompts: Path | None,
    seed: int = 0,
    limit: int | None = None,
    assignments: Sequence[str] = (),
    quiet: bool = False,
    report: Report = lambda _: None,
) -> str:
    """Reproduce the paper's row of a dataset, with its conventions and with ours.

    Args:
        dataset: ``lungs``, ``fetal-head`` or ``brain``.
        data: folder of the dataset as downloaded.
        output: a new or empty location, or the output of the same reproduction, to resume it.
        weights: a folder with the official weights, or ``bundled``.
        prompts: SaLIP's JSON of sentences.
        seed: of the images and the settings of both searches.
        limit: use only the first files in the order of their names.
        assignments: ``section.field=value`` for both runs.
        quiet: show no progress of jobs.
        report: called with each line for the user.

    Returns:
        The table as Markdown, which is also written to the output.

    Raises:
        WeightsError: weights are missing or altered.
        InputError: data or prompts are missing.
        OutputError: the output holds other files, or (ResumeError) another reproduction.
        JobError: a job was stopped or failed.
    """
    protocol = PROTOCOLS[dataset]
    settings = make_settings(protocol, weights, prompts, seed=seed, assignments=assignments)
    store = Store(output)
    made_by = {
        "dataset": dataset,
        "data": normalise(data),
        "seed": seed,
        "limit": limit,
        "weights": identify(settings.published),
        "published": settings.published.recipe(),
        "ours": settings.ours.recipe(),
    }
    record = Record("reproduction", layout.REPRODUCTION, made_by, "job", {"schema_version": 1})
    claim_or_resume(store, record)
    images = prepare(dataset, data, store, seed=seed, limit=limit)
    if images.unpaired:
        report(f"left out: {counted(images.unpaired, 'image')} without a reference")
    run = Reproduction(protocol, settings, images, store, seed, quiet, report)
    report(_estimate(run))
    with ExitStack() as stack:
        if not all(store.exists(f"{step}/{layout.SUMMARY}") for step in _steps(settings)):
            stack.enter_context(shared_session([settings.published, settings.ours]))
        best = _search(run)
        _label(run, layout.REPRODUCTION_FAITHFUL, best.config, images.everything)
        ours, tuned = _tune(run)
        _label(run, layout.REPRODUCTION_OURS, ours, images.scored)
    return _write_table(run, dataset, best, tuned, assignments)


def _steps(settings: Settings) -> list[str]:
    draws = [_draw(recipe) for recipe in settings.draws]
    return [*draws, layout.REPRODUCTION_FAITHFUL, layout.REPRODUCTION_OURS]


def _draw(recipe: Recipe) -> str:
    return f"{layout.REPRODUCTION_SEARCH}/{recipe.number}"


def _estimate(run: Reproduction) -> str:
    """Return how long the reproduction takes on this machine; a resumed one knows it already."""
    data = run.store.read(layout.REPRODUCTION_PROFILE)
    if data is None:
        run.report(f"measuring {counted(_MEASURED, 'image')} to estimate the time")
        profile = measure(run.images.everything.images, run.settings.published, images=_MEASURED)
        count = _count_pictures(run, run.images.everything)
        measured: dict[str, Any] = {"profile": asdict(profile), "pictures": count}
        run.store.write(layout.REPRODUCTION_PROFILE, json.dumps(measured, indent=2).encode())
    else:
        measured = json.loads(data)
    profile = Profile(**measured["profile"])
    # Both runs label nearly all images, each search a few of them several times.
    total = 2 * measured["pictures"] + len(run.settings.draws) * len(run.images.tuning.uris)
    hours = size(profile, images=total, gpus=profile.device == "cuda").hours
    machine = "one GPU" if profile.device == "cuda" else counted(profile.cores, "core")
    duration = f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} min"
    kind = "slice" if run.protocol.volumes else "image"
    return (
        f"{counted(measured['pictures'], kind)}, labelled twice: about {duration} on {machine}, "
        "and less on a cluster (set RAY_ADDRESS, or give --address)"
    )


def _count_pictures(run: Reproduction, listing: Listing) -> int:
    """Return the number of images of a listing; each slice is one."""
    from salip_ray.pipeline.inputs import list_input

    return list_input(listing.images, run.settings.published).manifest.n_images


def _search(run: Reproduction) -> Recipe:
    """Return the best draw of the published search.

    As published, the search uses images that are scored later, and the first of equal draws wins.
    """
    best, best_dice = run.settings.draws[0], -math.inf
    for recipe in run.settings.draws:
        search = {
            "propose": recipe.config.propose.model_copy(update=dict(run.protocol.search)),
            "run": recipe.config.run.model_copy(update={"modes": ("cascade",)}),
        }
        name = _draw(recipe)
        _label(run, name, recipe.config.model_copy(update=search), run.images.tuning, quiet=True)
        dice = mean_of([*_published(run, name, run.images.tuning)]).dice
        of = f"draw {recipe.number} of {len(run.settings.draws)}"
        run.report(f"{of}: Dice {dice:.3f} ({_changes(recipe.changes)})")
        if dice > best_dice:
            best, best_dice = recipe, dice
    return best


def _tune(run: Reproduction) -> tuple[Config, dict[str, Any]]:
    """Return our recipe, and the results of the search for it."""
    ours = run.settings.ours
    results = tune(
        run.images.tuning.images,
        run.images.tuning.references,
        run.at(layout.REPRODUCTION_TUNING),
        ours,
        space=default_space(ours),
        trials=TRIALS,
        limit=_count_pictures(run, run.images.tuning),
        seed=run.seed,
        report=run.report,
    )
    tuned = with_changes(ours, results["best"]["changes"])
    task = tuned.task.model_copy(update={"tuned_on": tuple(results["job"]["tuned_on"])})
    return tuned.model_copy(update={"task": task}), results["best"]


def _label(
    run: Reproduction, name: str, config: Config, images: Listing, *, quiet: bool | None = None
) -> None:
    references = images.references if "gt_sam" in config.run.modes else None
    quiet = run.quiet if quiet is None else quiet
    label(images.images, run.at(name), config, references=references, quiet=quiet)


def _published(run: Reproduction, name: str, images: Listing) -> list[Figure]:
    labels, references = _open(run, name, images)
    return list(
        published_figures(
            name, labels, references, volumes=run.protocol.volumes, binary=run.protocol.binary
        )
    )


def _open(run: Reproduction, name: str, images: Listing) -> tuple[LabelOutput, References]:
    return LabelOutput.open(run.at(name)), References.open(images.references)


def _write_table(
    run: Reproduction, dataset: str, best: Recipe, tuned: Mapping[str, Any], changed: Sequence[str]
) -> str:
    figures: list[Figure] = []
    searched = set(run.images.everything.uris) - set(run.images.scored.uris)
    for name, images in (
        (layout.REPRODUCTION_FAITHFUL, run.images.everything),
        (layout.REPRODUCTION_OURS, run.images.scored),
    ):
        figures += _published(run, name, images)
        # Our scoring never counts a file of the search.
        figures += own_figures(
            name, *_open(run, name, images), volumes=run.protocol.volumes, without=searched
        )
    notes = _notes(run, len(searched), best, tuned, changed)
    text = markdown(f"SaLIP on {dataset}", run.protocol.gain, figures, notes)
    run.store.write(layout.REPRODUCTION_FIGURES, figures_csv(figures).encode())
    run.store.write(layout.REPRODUCTION_TABLE, text.encode())
    return text


def _notes(
    run: Reproduction,
    searched: int,
    best: Recipe,
    tuned: Mapping[str, Any],
    changed: Sequence[str],
) -> list[str]:
    """Return the lines below the table."""
    settings, volumes = run.settings, run.protocol.volumes
    kind = "volume" if volumes else "image"
    used = counted(searched, kind)
    notes = [
        "paper: its abstract (arXiv 2404.06362) states gains only",
        f"faithful: preset {run.protocol.published}; the best of {len(settings.draws)} random "
        f"draws on {used}, which are scored, too, as published: {_changes(best.changes)}",
        f"ours: preset {settings.ours_preset}; the best of {TRIALS} recipes on the same {used}, "
        f"which are not scored: {_changes(tuned['changes'])}",
        f"published scoring: {'mean over the slices of a volume' if volumes else '256 x 256'}",
        f"our scoring: {'3-D' if volumes else 'at the size of the image'}, without the {used} of "
        "the search in either run",
        "un-prompted SAM: the better of its most confident and its largest mask",
        f"in brackets: 95 % bootstrap intervals over {kind}s; {layout.REPRODUCTION_FIGURES} has "
        "every figure",
    ]
    if settings.bundled:
        notes.append("the models are those that ship with the package, not the paper's")
    if changed:
        notes.append(f"changed with --set: {', '.join(changed)}")
    for name in (layout.REPRODUCTION_FAITHFUL, layout.REPRODUCTION_OURS):
        summary = json.loads(run.store.read(f"{name}/{layout.SUMMARY}") or b"{}")
        if errors := summary.get("status", {}).get("error", 0):
            notes.append(f"{name}: {counted(errors, 'error row')} without a score")
    return notes


def _changes(changes: Mapping[str, Any]) -> str:
    """Return the settings of a recipe in words."""
    return ", ".join(f"{field}={value}" for field, value in changes.items()) or "nothing changed"
