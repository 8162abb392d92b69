"""From an input location to the manifest of a job: list, expand to slices, cut into shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import ray
from ray.exceptions import RayTaskError

from salip_ray.cluster.session import ray_session
from salip_ray.config import ClassSpec, Config, ProposeConfig
from salip_ray.errors import ConfigError, InputError, SalipError
from salip_ray.models.registry import (
    NONE,
    PROMPTS,
    is_prompted,
    needs_proposer,
    needs_refiner,
    needs_retriever,
)
from salip_ray.output.layout import RUN
from salip_ray.output.manifest import Manifest, make_manifest
from salip_ray.output.store import Store
from salip_ray.schema import ImageRef
from salip_ray.sources.expand import expand, read_all_headers
from salip_ray.sources.headers import Header
from salip_ray.sources.listing import list_images
from salip_ray.sources.locations import public_uri
from salip_ray.sources.overview import describe_listing
from salip_ray.sources.patterns import FileFilter
from salip_ray.sources.prompts import Prompts
from salip_ray.sources.references import References
from salip_ray.sources.scan import Skipped
from salip_ray.wording import counted

_FILES_WITHOUT_RAY = 512  # so many headers are read in threads, faster than Ray starts
_FILES_PER_TASK = 256


@dataclass(frozen=True)
class JobInput:
    """The images of an input location, cut into shards.

    Attributes:
        manifest: the images.
        skipped: counts of the files that were left out.
        notes: lines to show to the user.
    """

    manifest: Manifest
    skipped: Skipped
    notes: tuple[str, ...]


def list_input(
    location: str | os.PathLike[str], config: Config, selection: FileFilter | None = None
) -> JobInput:
    """List the images of a location, expand volumes to slices, and cut shards.

    Args:
        location: the input of a job.
        config: its ``image``, ``privacy``, ``run`` and ``storage.input`` are used.
        selection: which files to list; all by default.

    Raises:
        InputError: the location holds no image, or a store fails while it is listed.
        ResourceError: Ray cannot be started to read the headers of many files.
    """
    listing = list_images(
        location, config.storage.input, selection=selection or FileFilter(), privacy=config.privacy
    )
    expanded, series_notes = expand(listing, config, partial(_read_headers, config=config))
    manifest = make_manifest(expanded, config.run.rows_per_shard)
    size = f"{counted(manifest.n_images, 'image')} in {counted(manifest.n_shards, 'shard')}"
    notes = [
        *describe_listing(listing, config.privacy),
        *(f"note: {note}" for note in series_notes),
        size,
    ]
    if manifest.duplicates:
        repeated = counted(manifest.duplicates, "repeated URI")
        notes.append(f"note: {repeated} in the input; each image is labelled once")
    return JobInput(manifest, listing.skipped, tuple(notes))


def open_references(references: str | None, config: Config) -> References | None:
    """Return the reference masks of a job, or None if none of its modes needs them.

    Raises:
        ConfigError: ``gt_sam`` is a mode and ``references`` is None.
        InputError: the references cannot be read.
    """
    if "gt_sam" not in config.run.modes:
        return None
    if references is None:
        raise ConfigError(
            "run.modes has gt_sam, which needs reference masks: give their folder or index.csv "
            "as references (--reference)"
        )
    return References.open(references, config.storage.input)


def open_prompts(prompts: str | None, config: Config) -> Prompts | None:
    """Return the prompts of a job, or None if it proposes candidates itself.

    Raises:
        ConfigError: there are no prompts although the proposer needs them, or a mode that needs
            proposals is on.
        InputError: the prompts cannot be read.
    """
    if not is_prompted(config):
        return None
    if prompts is None:
        raise ConfigError(f"propose.model is {PROMPTS}: give the boxes (--prompts)")
    if "unprompted" in config.run.modes:
        raise ConfigError("run.modes has unprompted, which needs proposals: leave out the prompts")
    outlines = not needs_refiner(config)  # which are the labels then
    opened = _open_given(prompts, config.task.classes, config, outlines=outlines)
    if opened.has_points and config.refine.model != "sam":
        raise ConfigError(
            f"prompts {opened.location} have points, which need refine.model: sam, found "
            f"{config.refine.model}: give boxes"
        )
    return opened


def open_candidates(candidates: str | None, config: Config) -> Prompts | None:
    """Return the candidates that are given to a job, or None if it proposes all of them.

    Raises:
        ConfigError: there are none although the job proposes nothing, or no retriever would rank
            them.
        InputError: they cannot be read, or are points.
    """
    require_use_of_candidates(config, given=candidates is not None)
    if candidates is None:
        return None
    opened = _open_given(candidates, None, config)
    if opened.has_points:
        raise InputError(f"candidates {opened.location} have points: give boxes or masks")
    return opened


def _open_given(
    location: str, classes: Sequence[ClassSpec] | None, config: Config, *, outlines: bool = False
) -> Prompts:
    try:
        return Prompts.open(location, classes, config.storage.input, outlines=outlines)
    except InputError:
        if Store(location, config.storage.input).exists(RUN):
            raise InputError(
                f"{public_uri(location)} is an output: export its masks with salip-ray export png "
                "(nifti or dicom-seg for volumes), and give those"
            ) from None
        raise


def require_use_of_candidates(config: Config, *, given: bool) -> None:
    """Raise ConfigError if a job needs candidates and has none, or has some and cannot use them."""
    if not given:
        if not (needs_proposer(config) or is_prompted(config)):
            raise ConfigError(f"propose.model is {NONE}: give the candidates (--candidates)")
        return
    if is_prompted(config):
        raise ConfigError("prompts are segmented as they are, without candidates: give one of both")
    if not needs_retriever(config):
        raise ConfigError(
            f"no retriever ranks the candidates: run.modes needs cascade, and propose.model a "
            f"proposer that does not label its own (found {config.propose.model})"
        )
    if "unprompted" in config.run.modes and not needs_proposer(config):
        raise ConfigError("run.modes has unprompted, which needs proposals: set propose.model")


def with_prompts(config: Config, prompts: str | None) -> Config:
    """Return the configuration of a job whose boxes are given; unchanged if ``prompts`` is None."""
    if prompts is None:
        return config
    propose = ProposeConfig(model=PROMPTS)
    return config.without_volumes().model_copy(update={"propose": propose})


def among_images(
    references: References | None, prompts: Prompts | None, manifest: Manifest
) -> tuple[References | None, Prompts | None]:
    """Return references and prompts for the images of a manifest: a name may be of several.

    Raises:
        InputError: there are prompts, but no image has one.
    """
    columns = (manifest.table[name].to_pylist() for name in ("uri", "index"))
    images = [ImageRef(uri, index) for uri, index in zip(*columns, strict=True)]
    if references is not None:
        references = references.among(image.uri for image in images)
    return references, None if prompts is None else prompts.among(images)


def note_unused(prompts: Prompts | None) -> list[str]:
    """Return a line on those of images that are not in the input, if there are any."""
    if prompts is None or not prompts.unused:
        return []
    verb = "is" if len(prompts.unused) == 1 else "are"
    images = counted(len(prompts.unused), "image")
    first = prompts.unused[0]
    return [f"note: {images} of the {prompts.noun} {verb} not in the input (the first: {first})"]


def _read_headers(addresses: Sequence[str], config: Config) -> list[Header]:
    """Read the headers of files: of a few in threads, of many in Ray tasks."""
    if len(addresses) <= _FILES_WITHOUT_RAY:
        return read_all_headers(addresses, config)
    cpus = config.pools.fetch_cpus
    with ray_session(lambda _: 1 + cpus):
        task = ray.remote(read_all_headers).options(num_cpus=cpus)
        parts = [
            task.remote(addresses[start : start + _FILES_PER_TASK], config)
            for start in range(0, len(addresses), _FILES_PER_TASK)
        ]
        try:
            return [header for part in ray.get(parts) for header in part]
        except RayTaskError as error:
            if isinstance(error.cause, SalipError):
                raise error.cause from None
            raise
