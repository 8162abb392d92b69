"""The job: a location of images in, a location of labels out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pyarrow.compute as pc

from salip_ray.config import Config
from salip_ray.errors import ConfigError, JobError
from salip_ray.models.task_check import require_taught_classes
from salip_ray.models.weights import identify, pin
from salip_ray.output.job_record import claim_or_resume_job, make_fingerprint, read_run
from salip_ray.output.layout import MANIFEST
from salip_ray.output.lease import held
from salip_ray.output.manifest import Manifest, make_manifest
from salip_ray.output.store import Store
from salip_ray.output.summary import Summary, repair_summary, summarise, write_summary
from salip_ray.pipeline.expand import expand
from salip_ray.pipeline.progress import ProgressReporter, summary_table
from salip_ray.pipeline.run import run_on_ray
from salip_ray.sources.listing import list_images
from salip_ray.sources.locations import public_uri
from salip_ray.sources.overview import describe_listing
from salip_ray.sources.patterns import Selection
from salip_ray.sources.references import References
from salip_ray.sources.scan import Skipped
from salip_ray.wording import counted


def label(
    input: str | os.PathLike[str],  # noqa: A002  (the word a person would use)
    output: str | os.PathLike[str],
    config: Config,
    *,
    references: str | None = None,
    manifest: str | None = None,
    quiet: bool = False,
    extend: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
) -> Summary:
    """Label every image of ``input`` and commit the labels to ``output``, shard by shard.

    The same call goes on where an earlier one was stopped, even by kill -9, and returns at once
    where all is done. What an output holds is described in :mod:`salip_ray.output.job_record` and
    :data:`salip_ray.schema.LABEL_SCHEMA`. Uses the Ray that this process is connected to, else the
    one at ``RAY_ADDRESS``, else starts one on this machine for the time of the job.

    Args:
        input: folder, prefix, glob, image or manifest (CSV or Parquet with a column ``uri``); local
            or of any fsspec scheme.
        output: an empty or new location, or one that this very job began.
        config: from :func:`salip_ray.load_config`.
        references: reference masks for the mode ``gt_sam``: a folder or an ``index.csv``.
        manifest: keep the manifest in this file, not in the output: it alone has the names of
            images where ``privacy.hash_uris`` is on.
        quiet: show no progress.
        extend: where the input has gained images since the output was begun, label what is new
            into new shards; without it a grown input is refused.
        include: patterns, one of which a file must match (:class:`.sources.patterns.Selection`).
        exclude: patterns of files that are left out.
        limit: label at most so many files: the first in the order of their URIs.

    Raises:
        ConfigError: ``gt_sam`` is a mode but there are no references, or the bundled CLIP was not
            taught a class.
        InputError: no image is found.
        WeightsError: a checkpoint is missing or altered.
        OutputError: the output is not ours, (ResumeError) was begun by another job, or (LeaseError)
            is being written by another driver.
        ResourceError: the pools do not fit.
        JobError: the job was stopped or broke down, or ended with too many error rows.

    Example:
        >>> from salip_ray import label, load_config
        >>> summary = label("xrays", "labels", load_config("lungs"), quiet=True)
        >>> summary.images, summary.status
        (3, {'ok': 3})
    """
    began = time.monotonic()
    progress = ProgressReporter(quiet=quiet)
    require_taught_classes(config)
    known = open_references(references, config)
    selection = Selection(tuple(include), tuple(exclude), limit)
    plan, skipped = _plan(input, config, selection, progress)
    where = None if known is None or references is None else public_uri(references)
    weights = identify(config)
    fingerprint = make_fingerprint(config.recipe(), weights, plan, where, selection.to_json())
    elsewhere = {} if manifest is None else {MANIFEST: manifest}
    store = Store(output, config.storage.output, elsewhere=elsewhere)
    read_run(store)  # what is not ours is refused before anything is written
    with held(store) as lease:
        job = claim_or_resume_job(store, plan, fingerprint, extend=extend)
        plan = job.manifest
        if known is not None:
            known = known.among(plan.table["uri"].unique().to_pylist())
        for note in job.notes:
            progress.report(f"note: {note}")
        todo = plan.todo(job.committed)
        if todo.num_rows:
            if done := len(job.committed):
                progress.report(
                    f"going on: {done:,} of {plan.n_shards:,} shards are committed already"
                )
            # Pinned, a worker that fetches for itself refuses what is not the driver's file.
            run_on_ray(todo, plan, pin(config, weights), store, known, progress, lease)
            new = int(pc.sum(pc.greater_equal(todo["seq"], 0)).as_py())
            summary = summarise(
                store,
                plan,
                wall_seconds=time.monotonic() - began,
                images_in_run=new,
                skipped=skipped.counts(),
            )
            lease.require_owner()
            write_summary(store, summary)
        else:
            n_images, n_shards = plan.n_images, plan.n_shards
            progress.report(f"{store} is complete: {n_images:,} images in {n_shards:,} shards")
            summary = summarise(store, plan, skipped=skipped.counts())
            repair_summary(store, summary)
    return conclude(summary, config, progress)


def conclude(summary: Summary, config: Config, progress: ProgressReporter) -> Summary:
    """Show what came of a job.

    Raises:
        JobError: too many rows are errors.
    """
    if not progress.console.quiet:
        progress.console.print(summary_table(summary))
    _require_few_errors(summary, config.run.max_error_share)
    return summary


def open_references(references: str | None, config: Config) -> References | None:
    """The reference masks of a job, where one of its modes needs them."""
    if "gt_sam" not in config.run.modes:
        return None
    if references is None:
        raise ConfigError(
            "run.modes has gt_sam, which needs reference masks: give their folder or index.csv "
            "as references (--reference)"
        )
    return References.open(references, config.storage.input)


def _plan(
    location: str | os.PathLike[str],
    config: Config,
    selection: Selection,
    progress: ProgressReporter,
) -> tuple[Manifest, Skipped]:
    listing = list_images(
        location, config.storage.input, selection=selection, privacy=config.privacy
    )
    for line in describe_listing(listing, config.privacy):
        progress.report(line)
    listing, notes = expand(listing, config)
    for note in notes:
        progress.report(f"note: {note}")
    plan = make_manifest(listing, config.run.rows_per_shard)
    progress.report(f"{counted(plan.n_images, 'image')} in {counted(plan.n_shards, 'shard')}")
    if left_out := str(listing.skipped):
        progress.always_report(f"left out: {left_out}")
    if plan.duplicates:
        progress.report(
            f"note: {plan.duplicates:,} URIs are named more than once; each is labelled once"
        )
    return plan, listing.skipped


def _require_few_errors(summary: Summary, limit: float) -> None:
    if summary.error_share > limit:
        raise JobError(
            f"{summary.status['error']:,} of {summary.images:,} images "
            f"({summary.error_share:.1%}) are error rows, above run.max_error_share = {limit:g}: "
            f"the column error in {summary.output}/shards says why"
        )
