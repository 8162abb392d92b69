"""Label a location of images: the steps of a job, and what they share."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from salip_ray.config import Config
from salip_ray.errors import JobError
from salip_ray.models.identity import identify, pin
from salip_ray.models.registry import describe
from salip_ray.models.task_check import require_taught_classes
from salip_ray.output.job_record import claim_or_resume_job, make_fingerprint, refuse_other_files
from salip_ray.output.layout import MANIFEST
from salip_ray.output.lease import Lease, held
from salip_ray.output.manifest import Manifest, count_images
from salip_ray.output.store import Store
from salip_ray.output.summary import Summary, repair_summary, summarise, write_summary
from salip_ray.pipeline.inputs import (
    among_images,
    list_input,
    note_unused,
    open_candidates,
    open_prompts,
    open_references,
    with_prompts,
)
from salip_ray.pipeline.monitoring.progress import ProgressReporter, summary_table
from salip_ray.pipeline.run import run_on_ray
from salip_ray.schema import SCHEMA_VERSION
from salip_ray.sources.locations import public_uri
from salip_ray.sources.patterns import FileFilter
from salip_ray.sources.prompts import Prompts
from salip_ray.sources.references import References
from salip_ray.wording import counted


@dataclass(frozen=True)
class Job:
    """A claimed output and everything that is needed to label its images.

    Attributes:
        config: the configuration, its weights pinned to the files that the driver identified.
        manifest: all images of the job.
        store: the output.
        references: reference masks, if a mode needs them.
        prompts: prompts or candidates of the images, if they are given.
        lease: of the output; lost if another driver takes it over.
        progress: shows progress to the user.
        version: schema version of the output.
    """

    config: Config
    manifest: Manifest
    store: Store
    references: References | None
    prompts: Prompts | None
    lease: Lease
    progress: ProgressReporter
    version: int = SCHEMA_VERSION


def label(
    input: str | os.PathLike[str],  # noqa: A002  (the word a person would use)
    output: str | os.PathLike[str],
    config: Config,
    *,
    references: str | None = None,
    prompts: str | None = None,
    candidates: str | None = None,
    manifest: str | None = None,
    quiet: bool = False,
    extend: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
) -> Summary:
    """Label every image of ``input`` and commit the labels to ``output``, shard by shard.

    The same call resumes a job that was stopped, even by kill -9, and returns at once if all images
    are labelled. :mod:`salip_ray.output.layout` lists the files of an output,
    :data:`salip_ray.schema.LABEL_SCHEMA` its columns. The job uses the Ray that this process is
    connected to, else the one at ``RAY_ADDRESS``, else it starts one on this machine.

    Args:
        input: folder, prefix, glob, image or manifest (CSV or Parquet with a column ``uri``); local
            or of any fsspec scheme.
        output: an empty or new location, or the output of this same job.
        config: from :func:`salip_ray.load_config`.
        references: reference masks for the mode ``gt_sam``: a folder or an ``index.csv``.
        prompts: boxes to prompt SAM with, instead of the candidates that CLIP retrieves
            (:mod:`salip_ray.sources.prompts`). Each is labelled as its class.
        candidates: masks or boxes made elsewhere, in the forms of prompts. CLIP ranks them with the
            candidates that are proposed, or alone if ``propose.model`` is ``none``.
        manifest: write the manifest to this file, not into the output. If ``privacy.hash_uris`` is
            on, only the manifest holds the names of images.
        quiet: show no progress.
        extend: if the input has gained images since the job was created, label them into new
            shards. Without it, a job whose input has grown is refused.
        include: patterns, one of which a file must match (:class:`.sources.patterns.FileFilter`).
        exclude: patterns of files that are left out.
        limit: label at most so many files: the first in the order of their URIs.

    Raises:
        ConfigError: ``gt_sam`` is a mode but there are no references, or the bundled CLIP was not
            taught a class.
        InputError: the input holds no image.
        WeightsError: a checkpoint is missing or altered.
        OutputError: the output holds other files, (ResumeError) belongs to another job, or
            (LeaseError) is being written by another driver.
        ResourceError: the actor pools do not fit the machine or cluster.
        JobError: the job was stopped, failed, or ended with too many error rows.

    Examples:
        >>> from salip_ray import label, load_config
        >>> summary = label("xrays", "labels", load_config("lungs"), quiet=True)
        >>> summary.images, summary.status
        (3, {'ok': 3})
    """
    started = time.monotonic()
    progress = ProgressReporter(quiet=quiet)
    if prompts is not None and config.volumes.consistent:
        progress.report("note: volumes.consistent has no effect: the boxes are given")
    config = with_prompts(config, prompts)
    require_taught_classes(config)
    reference_masks = open_references(references, config)
    boxes = open_prompts(prompts, config)
    given = open_candidates(candidates, config) or boxes
    selection = FileFilter(tuple(include), tuple(exclude), limit)
    listed = list_input(input, config, selection)
    progress.report(*listed.notes)
    if left_out := str(listed.skipped):
        progress.always_report(f"left out: {left_out}")
    # Without slices the section does nothing, and its defaults must not refuse a resume.
    if listed.manifest.table["volume"].null_count == listed.manifest.n_images:
        config = config.without_volumes()
    among_images(None, given, listed.manifest)  # nothing is written if no image has a prompt
    weights = identify(config)
    of_references = None if reference_masks is None else public_uri(str(references))
    fingerprint = make_fingerprint(
        config.recipe(),
        weights,
        listed.manifest,
        of_references,
        selection.to_json(),
        models=describe(config),
        **({} if given is None else {given.noun: given.identity}),
    )
    store = Store(
        output, config.storage.output, elsewhere={} if manifest is None else {MANIFEST: manifest}
    )
    refuse_other_files(store)
    with held(store) as lease:
        claimed = claim_or_resume_job(store, listed.manifest, fingerprint, extend=extend)
        progress.report(*(f"note: {note}" for note in claimed.notes))
        reference_masks, given = among_images(reference_masks, given, claimed.manifest)
        progress.report(*note_unused(given))
        # A worker that fetches pinned weights itself refuses any other file.
        job = Job(
            pin(config, weights),
            claimed.manifest,
            store,
            reference_masks,
            given,
            lease,
            progress,
            claimed.version,
        )
        todo = job.manifest.todo(claimed.committed)
        shards = counted(job.manifest.n_shards, "shard")
        if todo.num_rows == 0:
            images = counted(job.manifest.n_images, "image")
            progress.report(f"{store} is complete: {images} in {shards}")
        else:
            if done := len(claimed.committed):
                progress.report(f"resuming: {done:,} of {shards} already committed")
            run_on_ray(job, todo)
        summary = summarise_run(job, started, count_images(todo), listed.skipped.counts())
    return conclude(summary, config, progress)


def summarise_run(
    job: Job, started: float, images: int, skipped: Mapping[str, int] | None = None
) -> Summary:
    """Add up the statistics of all shards, and write ``summary.json`` if it is out of date.

    Args:
        job: the job; all of its shards are committed.
        started: ``time.monotonic()`` when the run started.
        images: how many images this run labelled; 0 repairs the summary of an earlier run.
        skipped: counts of files that were left out, by reason; None keeps those of the last run.

    Raises:
        LeaseError: another driver has taken the output over.
    """
    if not images:
        summary = summarise(job.store, job.manifest, skipped=skipped)
        repair_summary(job.store, summary)
        return summary
    seconds = time.monotonic() - started
    summary = summarise(
        job.store,
        job.manifest,
        wall_seconds=seconds,
        images_in_run=images,
        skipped=skipped,
    )
    job.lease.require_owner()
    write_summary(job.store, summary)
    return summary


def conclude(summary: Summary, config: Config, progress: ProgressReporter) -> Summary:
    """Show the summary of a job.

    Raises:
        JobError: the share of error rows is above ``run.max_error_share``.
    """
    # Not as the title of the table, which would wrap a long path.
    progress.report(f"{counted(summary.images, 'image')} in {summary.output}")
    progress.show(summary_table(summary))
    if summary.status.get("empty") == summary.images:
        progress.report(
            "note: no image has a label. The column outcomes gives the reason of each, and "
            "salip-ray show IMAGE --config TASK draws what SAM and CLIP made of one"
        )
    if summary.error_share > config.run.max_error_share:
        errors = summary.status["error"]
        verb = "is an error row" if errors == 1 else "are error rows"
        raise JobError(
            f"{errors:,} of {counted(summary.images, 'image')} ({summary.error_share:.1%}) {verb}, "
            f"above run.max_error_share = {config.run.max_error_share:g}: "
            f"salip-ray errors {summary.output} lists them with their reasons"
        )
    return summary
