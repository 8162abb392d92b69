"""SaLIP's test-time search (step 6) on Ray Tune: seeded, in rungs, and resumable.

A search writes to its output, under the names of :mod:`salip_ray.output.layout`: its record, the
cached results of the encoders (deleted at the end), the scores of each trial and rung, the table
and plot of all trials and, last, the best recipe as a task file for ``label --config``.
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
from salip_ray.models.identity import identify, pin
from salip_ray.models.registry import describe, needed
from salip_ray.models.task_check import require_taught_classes
from salip_ray.output import layout
from salip_ray.output.claim import Record, as_json, claimed
from salip_ray.output.lease import Lease, require_owner
from salip_ray.output.store import Store
from salip_ray.sources.locations import public_uri
from salip_ray.sources.references import References
from salip_ray.tuning.halving import Standing, rungs, survivors
from salip_ray.tuning.labelled_split import LabelledImage, labelled_split, named
from salip_ray.tuning.outcome import plot, summary, table, task_file
from salip_ray.tuning.space import Range, Recipe, Space, draw_recipes

_FAILURES = 2  # of a trial's worker, before the search fails
_GPU_SHARE = 0.25  # of a trial, which runs only SAM's decoder


@dataclass(frozen=True)
class Search:
    """The state that every worker of a search gets.

    Attributes:
        store: the output of the search.
        recipes: all recipes, by number.
        images: the labelled split.
        references: their reference masks.
        threads: of each worker.
        owner: of the lease of the output.
    """

    store: Store
    recipes: Sequence[Recipe]
    images: Sequence[LabelledImage]
    references: References
    threads: int
    owner: str

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the output, unless another search has taken it over.

        Raises:
            LeaseError: another search has taken the output over.
            StoreError: the file cannot be written.
        """
        require_owner(self.store, self.owner)
        self.store.write(name, data)

    @property
    def texts_name(self) -> str:
        """Name of the file with the cached text features."""
        return f"{layout.TUNING_CACHE}/texts.npz"

    def cache_name(self, index: int) -> str:
        """Return the name of the cache file of the image at ``index`` of the labelled split."""
        return f"{layout.TUNING_CACHE}/{self.images[index].image_id}.npz"

    def trial_name(self, rung: int, number: int) -> str:
        """Return the name of the file with a trial's scores in a rung."""
        return f"{layout.TRIALS}/{rung}-{number:05d}.json"


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
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Search for the recipe that labels some images best; return the content of ``tuning.json``.

    Args:
        images: as for :func:`salip_ray.label`.
        references: a folder of masks, or an ``index.csv``.
        output: an empty or new location, or the output of the same search, to resume it.
        config: the recipe to start from; it is tried as well, on all images.
        space: fields that may change, and their values.
        trials: number of recipes to try.
        limit: number of images to try them on, of those with a reference.
        seed: of the choice of images and recipes.
        reference_options: fsspec options of the references.
        report: called with each line of progress.

    Raises:
        ConfigError: the space has hardly any valid recipe, or ``trials`` or ``limit`` is too small.
        InputError: there is no image, or none with a reference.
        OutputError: the output has other files, (ResumeError) belongs to another search, or
            (LeaseError) is written by another process.
        JobError: the search was stopped, or the given recipe cannot be tried.
    """
    if trials < 2 or limit < 1:
        raise ConfigError(f"trials must be 2 or more and images 1, found {trials} and {limit}")
    require_taught_classes(config)
    known = References.open(references, reference_options)
    recipes = draw_recipes(config, space, trials, seed)
    chosen, available = labelled_split(images, known, config, limit=limit, seed=seed)
    store = Store(output, config.storage.output)
    weights = identify(config)
    job = {
        "recipe": config.without_volumes().recipe(),  # images are labelled one by one
        "weights": weights,
        **({"models": models} if (models := describe(config)) else {}),
        "space": {k: [v.low, v.high] if isinstance(v, Range) else v for k, v in space.items()},
        "trials": trials,
        "seed": seed,
        "references": public_uri(references),
        "tuned_on": [image.image_id for image in chosen],
    }
    pinned = [Recipe(r.number, r.changes, pin(r.config, weights)) for r in recipes]
    record = Record("search", layout.TUNING, job, key="job", before={"schema_version": 1})
    with claimed(store, record) as claim:
        search = Search(store, pinned, chosen, known, threads=1, owner=claim.lease.owner)
        if store.read(layout.TUNED_TASK) is None:
            report(
                f"Tuning on {len(chosen)} of {available:,} images with a reference: "
                f"{trials} recipes (0 is the given configuration)."
            )
            results = _run(search, job, recipes, claim.lease, report)
        else:
            report(f"{store} is complete")
            results = dict(json.loads(store.read(layout.TUNING) or b"{}"))
        _delete_cache(store)
    return results


def _run(
    search: Search,
    job: Mapping[str, Any],
    recipes: Sequence[Recipe],
    lease: Lease,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Run all rungs, and write the results; ``recipes`` are those of the search, not pinned."""
    with ray_session(lambda machine: machine.cores + 1) as machine:
        try:
            standings = _run_rungs(search, machine, lease, report)
        except RayError as error:
            lease.require()
            reason = str(error).strip().splitlines()[-1]
            raise JobError(
                f"the search failed: {reason}. Run the same command again to resume"
            ) from error
    lease.require_owner()
    return _write_results(search.store, job, recipes, search, standings)


def _run_rungs(
    search: Search, machine: Machine, lease: Lease, report: Callable[[str], None]
) -> dict[int, Standing]:
    """In each rung, cache the new images, then try the recipes that are left on them."""
    standings = {recipe.number: Standing(recipe.number) for recipe in search.recipes}
    running = sorted(standings)
    steps = rungs(len(search.images))
    for rung, indices in enumerate(steps):
        lease.require_owner()
        _run_trials(search, rung, running, indices, machine)
        lease.require_owner()
        for number in running:
            data = search.store.read(search.trial_name(rung, number))
            if data is None:
                raise JobError(
                    f"the search stopped in rung {rung + 1} of {len(steps)}. "
                    "Run the same command again to resume"
                )
            scores = json.loads(data)
            standings[number].error = scores["error"]
            standings[number].scores += [
                {label: math.nan if dice is None else dice for label, dice in image.items()}
                for image in scores["scores"]
            ]
        if standings[0].error:
            raise JobError(f"the given configuration cannot be tried: {standings[0].error}")
        running_now = [standings[number] for number in running]
        best = max(s.dice for s in running_now if not math.isnan(s.dice))
        report(
            f"Rung {rung + 1} of {len(steps)}: {len(running)} recipes on {indices.stop} "
            f"{'image' if indices.stop == 1 else 'images'}. Best Dice {best:.3f}, "
            f"given configuration {standings[0].dice:.3f}."
        )
        if rung + 1 < len(steps):
            running = survivors(running_now)
    return standings


def caches_encoders(config: Config) -> bool:
    """Return True if trials can use cached results of the encoders, as those of SAM and CLIP."""
    models = {role: model.name for role, model in needed(config).items()}
    return models == {"propose": "sam", "retrieve": "clip", "refine": "sam"}


def _cache_images(search: Search, running: Sequence[int], indices: range, machine: Machine) -> None:
    """Run the encoders on the new images, once for all recipes that are left."""
    cached = set(search.store.names(layout.TUNING_CACHE))
    todo = [i for i in indices if search.cache_name(i).rpartition("/")[2] not in cached]
    if not todo:
        return
    from ray.util import ActorPool

    from salip_ray.tuning.workers import CacheWorker

    gpus = int(machine.gpus)
    count = min(len(todo), gpus or machine.cores)
    actor = ray.remote(CacheWorker).options(num_cpus=1, num_gpus=1 if gpus else 0)
    pool = ActorPool([actor.remote(search, list(running)) for _ in range(count)])
    try:
        for _ in pool.map_unordered(lambda worker, index: worker.cache.remote(index), todo):
            pass
    except RayTaskError as error:
        if isinstance(error.cause, SalipError):
            raise error.cause from None
        raise


def _run_trials(
    search: Search, rung: int, running: Sequence[int], indices: range, machine: Machine
) -> None:
    """Run one Ray Tune experiment: the recipes that are left, on the images of a rung."""
    scored = set(search.store.names(layout.TRIALS))
    todo = [n for n in running if search.trial_name(rung, n).rpartition("/")[2] not in scored]
    if not todo:
        return
    if caches_encoders(search.recipes[0].config):
        _cache_images(search, running, indices, machine)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its tables add nothing to the line of a rung
    from ray import tune as ray_tune

    from salip_ray.tuning.workers import TrialWorker

    trainable = ray_tune.with_parameters(TrialWorker, search=search, rung=rung, indices=indices)
    share = _GPU_SHARE if machine.gpus else 0
    path, files = search.store.for_ray()
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(trainable, {"cpu": 1, "gpu": share}),
        param_space={"number": ray_tune.grid_search(todo)},
        tune_config=ray_tune.TuneConfig(reuse_actors=True),
        run_config=ray_tune.RunConfig(
            name=f"{layout.TUNING_RUN}-{rung}",
            storage_path=path,
            storage_filesystem=files,
            failure_config=ray_tune.FailureConfig(max_failures=_FAILURES),
            verbose=0,
        ),
    )
    tuner.fit()


def _write_results(
    store: Store,
    job: Mapping[str, Any],
    recipes: Sequence[Recipe],
    search: Search,
    standings: Mapping[int, Standing],
) -> dict[str, Any]:
    results = summary(job, search.recipes, standings, named(search.images, recipes[0].config))
    best, n_images = results["best"]["trial"], len(search.images)
    comment = (
        f"Trial {best} of {len(search.recipes)}: Dice {results['best']['dice']:.4f} on the "
        f"{n_images} {'image' if n_images == 1 else 'images'} that chose it. Do not report it as "
        "a test result."
    )
    recipe = recipes[best].config  # without the digests that workers are pinned to
    store.write(layout.TRIALS_TABLE, table(search.recipes, standings).encode())
    store.write(layout.TUNING_PLOT, plot(list(standings.values()), len(search.images)).encode())
    store.write(layout.TUNING, as_json(results))
    store.write(layout.TUNED_TASK, task_file(recipe, job["tuned_on"], comment).encode())
    return results


def _delete_cache(store: Store) -> None:
    with contextlib.suppress(OutputError):  # without the right to delete, it only uses space
        for name in store.names(layout.TUNING_CACHE):
            store.delete(f"{layout.TUNING_CACHE}/{name}")
