"""``salip-ray submit`` and ``salip-ray stop``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from salip_ray.cli.options import (
    Candidates,
    Exclude,
    Extend,
    Include,
    InputOption,
    Limit,
    Mode,
    NewManifest,
    OutputOption,
    Preset,
    Prompts,
    Quiet,
    Reference,
    Set,
    Task,
    make_config,
    require_mode_for_reference,
)

Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server, as in http://head:8265.",
    ),
]


def submit(
    input: Annotated[  # noqa: A002  (the word a person would use)
        str,
        typer.Argument(
            help="Folder, prefix, glob, image or manifest. Local paths must exist on every node."
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            help="New or empty location, or a job to resume. Local paths must exist on every node."
        ),
    ],
    config: Task,
    address: Address,
    preset: Preset = None,
    assignments: Set = None,
    mode: Mode = None,
    reference: Reference = None,
    prompts: Prompts = None,
    candidates: Candidates = None,
    extend: Extend = False,
    include: Include = None,
    exclude: Exclude = None,
    limit: Limit = None,
    manifest: NewManifest = None,
    quiet: Quiet = False,
    input_option: InputOption = None,
    output_option: OutputOption = None,
    python: Annotated[
        str, typer.Option(help="Python interpreter on the cluster that has salip_ray.")
    ] = "python",
    ship: Annotated[
        bool,
        typer.Option("--ship", help="Send salip_ray and your own models."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show the log until the job ends.")
    ] = True,
) -> None:
    """Run label as a job on a Ray cluster and show its log.

    Ctrl-C detaches and leaves the job running. Run the same command again to join it, or to resume
    a job that was stopped. The exit status is that of the job.

    Example: salip-ray submit s3://bucket/in s3://bucket/out --config lungs --address http://head:8265
    """
    settings = make_config(
        config,
        preset=preset,
        assignments=assignments,
        modes=mode,
        input_options=input_option,
        output_options=output_option,
    )
    require_mode_for_reference(settings, reference)
    from salip_ray.cluster import submit as jobs

    client = jobs.connect(address)
    job = jobs.submit(
        client,
        input,
        output,
        settings,
        references=reference,
        prompts=prompts,
        candidates=candidates,
        manifest=manifest,
        quiet=quiet,
        extend=extend,
        include=include or (),
        exclude=exclude or (),
        limit=limit,
        python=python,
        ship=ship,
    )
    follow(client, job, address, wait=wait)


def follow(client: Any, job: Any, address: str, *, wait: bool = True) -> None:
    """Show the log of a submitted job until it ends, and exit with its status.

    Args:
        client: from :func:`salip_ray.cluster.submit.connect`.
        job: from :func:`salip_ray.cluster.submit.submit`.
        address: of the job server, for messages.
        wait: if False, only name the submitted job.
    """
    from salip_ray.cluster import submit as jobs

    verb = "joined running" if job.joined else "submitted"
    typer.echo(f"{verb} job {job.job_id}; stop it: salip-ray stop {job.job_id} --address {address}")
    if not wait:
        return
    try:
        code = jobs.follow(client, job.job_id, _write)
    except KeyboardInterrupt:
        typer.echo(
            f"\ndetached: job {job.job_id} is still running; run the same command again to join it"
        )
        raise typer.Exit(130) from None
    typer.echo(f"job {job.job_id} ended with exit code {code}", err=bool(code))
    raise typer.Exit(code)


def stop(
    job_id: Annotated[str, typer.Argument(help="Job id, as printed by salip-ray submit.")],
    address: Address,
) -> None:
    """Stop a submitted job after the commits in progress; submit it again to resume.

    Example: salip-ray stop raysubmit_ABC --address http://head:8265
    """
    from salip_ray.cluster import submit as jobs

    client = jobs.connect(address)
    if not jobs.stop(client, job_id):
        typer.echo(f"job {job_id} had already ended")
        return
    status = jobs.wait_until_over(client, job_id)
    typer.echo(f"job {job_id} is {status.value.lower()}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
