"""SaLIP's test-time search on Ray Tune: seeded, in rungs, and gone on with where it was stopped.

An output of a search holds::

    tuning.json   what was searched, on which images, and what came of it
    tuned.yaml    the best recipe, as ``label --config`` takes it; written last
    trials.csv    every trial: Dice, images, values
    tuning.svg    the same as a picture
    kept/         what SAM and CLIP made of the images, while the search goes on
    trials/       the scores of each trial and rung
    tune-0/       what Ray Tune keeps of a rung for itself
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from salip_ray.cluster.resources import Machine
from salip_ray.cluster.session import ray_session
from salip_ray.config import Config
from salip_ray.errors import ConfigError, JobError, OutputError, SalipError
from salip_ray.models.task_check import require_taught_classes
from salip_ray.models.weights import identify, pin
from salip_ray.output.claim import Record, as_json, claim_or_resume
from salip_ray.output.layout import (
    TRIALS,
    TRIALS_TABLE,
    TUNED_TASK,
    TUNING,
    TUNING_CACHE,
    TUNING_PLOT,
    TUNING_RUN,
)
from salip_ray.output.store import Store
from salip_ray.sources.locations import public_uri
from salip_ray.sources.references import References
from salip_ray.tuning.halving import Standing, rungs, survivors
from salip_ray.tuning.labelled_split import LabelledImage, labelled_split, named
from salip_ray.tuning.outcome import plot, summary, table, task_file
from salip_ray.tuning.space import Range, Recipe, Space, draw_recipes

_FAILURES = 2  # of a trial's worker, before the search is given up
_GPU_SHARE = 0.25  # of a trial, which needs SAM's decoder alone


@dataclass(frozen=True)
class Search:
    """What every worker of a search knows."""

    store: Store
    recipes: Sequence[Recipe]
    images: Sequence[LabelledImage]
    references: References
    threads: int

    def kept_name(self, image: int) -> str:
        """The file of what is kept of an image."""
        return f"{TUNING_CACHE}/{self.images[image].image_id}.npz"

    def trial_name(self, rung: int, number: int) -> str:
        """The file of a trial's scores in a rung."""
        return f"{TRIALS}/{rung}-{number:05d}.json"


def tune(
    images: str,
    references: str,
    output: str,
    config: Config,
    *,
    space: Space,
    trials: int = 50,
    limit: int = 20,
    seed: int = 0,
    reference_options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Search for the recipe that labels some images best; returns what ``tuning.json`` holds.

    Args:
        images: as for :func:`salip_ray.label`.
        references: a folder of masks, or an ``index.csv``.
        output: an empty or new location, or one that this very search began.
        config: the recipe to begin with, which is tried as well, on all images.
        space: what may change.
        trials: recipes to try.
        limit: images to try them on, of those with a reference.
        seed: of the choice of images and recipes.
        reference_options: fsspec options of the references.
        say: tells a person what is going on.

    Raises:
        ConfigError: the space holds hardly a valid recipe, or ``trials`` or ``limit`` is too small.
        InputError: no image, or none with a reference.
        OutputError: the output is not ours, or (ResumeError) of another search.
        JobError: the search was stopped, or the given recipe cannot be tried.
    """
    if trials < 2 or limit < 1:
        raise ConfigError(f"trials must be 2 or more and images 1, found {trials} and {limit}")
    require_taught_classes(config)
    known = References.open(references, reference_options)
    recipes = draw_recipes(config, space, trials, seed)
    chosen, there = labelled_split(images, known, config, limit=limit, seed=seed)
    store = Store(output, config.storage.output)
    weights = identify(config)
    job = {
        "recipe": config.recipe(),
        "weights": weights,
        "space": {k: [v.low, v.high] if isinstance(v, Range) else v for k, v in space.items()},
        "trials": trials,
        "seed": seed,
        "references": public_uri(references),
        "tuned_on": [image.image_id for image in chosen],
    }
    if _claim_or_resume(store, job):
        say(f"{store} is complete")
        return dict(json.loads(store.read(TUNING) or b"{}"))
    say(
        f"tuning on {len(chosen)} of {there:,} images with a reference; "
        f"{trials} recipes (0 is the configuration as given)"
    )
    pinned = pin(config, weights)
    models = {name: getattr(pinned, name) for name in ("sam", "clip")}
    recipes = [Recipe(r.number, r.changes, r.config.model_copy(update=models)) for r in recipes]
    with ray_session(lambda machine: machine.cores + 1) as machine:
        search = Search(store, recipes, chosen, known, threads=1)
        try:
            standings = _climb(search, machine, say)
        except RayError as error:
            said = str(error).strip().splitlines()[-1]
            raise JobError(f"the search broke down: {said}; the same command goes on") from error
    return _conclude(store, job, config, search, standings)


def _claim_or_resume(store: Store, job: Mapping[str, Any]) -> bool:
    """Claim an empty output, or check that it is of this search; return True if it is complete."""
    claim_or_resume(store, Record("search", TUNING, job, key="job", before={"schema_version": 1}))
    return store.read(TUNED_TASK) is not None


def _climb(search: Search, machine: Machine, say: Callable[[str], None]) -> dict[int, Standing]:
    """Rung by rung: keep what the models make of the new images, then try the recipes left."""
    standings = {recipe.number: Standing(recipe.number) for recipe in search.recipes}
    running = sorted(standings)
    steps = rungs(len(search.images))
    for rung, places in enumerate(steps):
        _try(search, rung, running, places, machine)
        for number in running:
            data = search.store.read(search.trial_name(rung, number))
            if data is None:
                raise JobError(
                    f"stopped in rung {rung + 1} of {len(steps)}; the same command goes on"
                )
            found = json.loads(data)
            standings[number].error = found["error"]
            standings[number].scores += [
                {label: math.nan if dice is None else dice for label, dice in image.items()}
                for image in found["scores"]
            ]
        if standings[0].error:
            raise JobError(f"the configuration as given cannot be tried: {standings[0].error}")
        running_now = [standings[number] for number in running]
        best = max(s.dice for s in running_now if not math.isnan(s.dice))
        say(
            f"rung {rung + 1} of {len(steps)}: {len(running)} recipes on {places.stop} images, "
            f"the best {best:.3f}, as given {standings[0].dice:.3f}"
        )
        if rung + 1 < len(steps):
            running = survivors(running_now)
    return standings


def _keep(search: Search, running: Sequence[int], places: range, machine: Machine) -> None:
    """Encode, decode and look at the new images, once for all recipes that are left."""
    there = set(search.store.names(TUNING_CACHE))
    todo = [at for at in places if search.kept_name(at).rpartition("/")[2] not in there]
    if not todo:
        return
    from ray.util import ActorPool

    from salip_ray.tuning.workers import Keeper

    gpus = int(machine.gpus)
    count = min(len(todo), gpus or machine.cores)
    actor = ray.remote(Keeper).options(num_cpus=1, num_gpus=1 if gpus else 0)
    pool = ActorPool([actor.remote(search, list(running)) for _ in range(count)])
    try:
        for _ in pool.map_unordered(lambda worker, at: worker.keep.remote(at), todo):
            pass
    except RayTaskError as error:
        if isinstance(error.cause, SalipError):
            raise error.cause from None
        raise


def _try(
    search: Search, rung: int, running: Sequence[int], places: range, machine: Machine
) -> None:
    """One Ray Tune experiment: the recipes that are left, on a rung's images."""
    there = set(search.store.names(TRIALS))
    todo = [n for n in running if search.trial_name(rung, n).rpartition("/")[2] not in there]
    if not todo:
        return
    _keep(search, running, places, machine)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its tables say less than the rung's line
    from ray import tune as ray_tune

    from salip_ray.tuning.workers import TrialRun

    trainable = ray_tune.with_parameters(TrialRun, search=search, rung=rung, places=places)
    share = _GPU_SHARE if machine.gpus else 0
    place, files = search.store.for_ray()
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(trainable, {"cpu": 1, "gpu": share}),
        param_space={"number": ray_tune.grid_search(todo)},
        tune_config=ray_tune.TuneConfig(reuse_actors=True),
        run_config=ray_tune.RunConfig(
            name=f"{TUNING_RUN}-{rung}",
            storage_path=place,
            storage_filesystem=files,
            failure_config=ray_tune.FailureConfig(max_failures=_FAILURES),
            verbose=0,
        ),
    )
    tuner.fit()


def _conclude(
    store: Store,
    job: Mapping[str, Any],
    config: Config,
    search: Search,
    standings: Mapping[int, Standing],
) -> dict[str, Any]:
    found = summary(job, search.recipes, standings, named(search.images, config))
    best = found["best"]["trial"]
    of = f"{found['best']['dice']:.4f} on {len(search.images)} images"
    said = f"Trial {best} of {len(search.recipes)}, Dice {of} that are therefore no test of it."
    # As given, without the digests that workers are pinned to.
    recipe = search.recipes[best].config.model_copy(update={"sam": config.sam, "clip": config.clip})
    store.write(TRIALS_TABLE, table(search.recipes, standings).encode())
    store.write(TUNING_PLOT, plot(list(standings.values()), len(search.images)).encode())
    store.write(TUNING, as_json(found))
    store.write(TUNED_TASK, task_file(recipe, job["tuned_on"], said).encode())
    with contextlib.suppress(OutputError):  # may not delete: they take up room, and that is all
        for name in store.names(TUNING_CACHE):
            store.delete(f"{TUNING_CACHE}/{name}")
    return found
