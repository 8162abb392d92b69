"""``salip-ray submit`` and ``salip-ray stop``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from salip_ray.cli.options import (
    InputOption,
    Mode,
    OutputOption,
    Preset,
    Set,
    make_config,
)
from salip_ray.errors import ConfigError

Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server, as in http://head:8265.",
    ),
]


def submit(
    input: Annotated[  # noqa: A002  (the word a person would use)
        str, typer.Argument(help="As for label; a local path must be the same on every node.")
    ],
    output: Annotated[str, typer.Argument(help="The same.")],
    config: Annotated[
        str,
        typer.Option(metavar="TASK", help="What to label: a shipped task's name, or a YAML file."),
    ],
    address: Address,
    preset: Preset = None,
    assignments: Set = None,
    mode: Mode = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="MASKS", help="Reference masks for gt_sam: a folder or index.csv."),
    ] = None,
    input_option: InputOption = None,
    output_option: OutputOption = None,
    python: Annotated[
        str, typer.Option(help="The interpreter that has salip_ray, as the cluster knows it.")
    ] = "python",
    ship: Annotated[
        bool, typer.Option("--ship", help="Send this installation's code along.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show the log until the job is over.")
    ] = True,
) -> None:
    """Run label on a Ray cluster, and show its log.

    Ctrl-C detaches and leaves the job running; the same command joins it again, or goes on where
    an earlier job was stopped. Exits as the job does. Example:

    salip-ray submit s3://bucket/xrays s3://bucket/labels --config lungs --address http://head:8265
    """
    settings = make_config(
        config,
        preset=preset,
        assignments=assignments,
        modes=mode,
        input_options=input_option,
        output_options=output_option,
    )
    if reference is not None and "gt_sam" not in settings.run.modes:
        raise ConfigError("--reference is for the mode gt_sam: add it, as in --mode cascade,gt_sam")
    from salip_ray.cluster import submit as jobs

    client = jobs.connect(address)
    job = jobs.submit(
        client, input, output, settings, references=reference, python=python, ship=ship
    )
    verb = "joined running" if job.joined else "submitted"
    typer.echo(f"{verb} job {job.job_id}; stop it: salip-ray stop {job.job_id} --address {address}")
    if not wait:
        return
    try:
        code = jobs.follow(client, job.job_id, _write)
    except KeyboardInterrupt:
        typer.echo(f"\ndetached: job {job.job_id} goes on; the same command joins it again")
        raise typer.Exit(130) from None
    typer.echo(f"job {job.job_id} ended with exit code {code}", err=bool(code))
    raise typer.Exit(code)


def stop(
    job_id: Annotated[str, typer.Argument(help="As submit printed it.")],
    address: Address,
) -> None:
    """Stop a submitted job: it finishes the commits under way; submit goes on from there."""
    from salip_ray.cluster import submit as jobs

    client = jobs.connect(address)
    if not jobs.stop(client, job_id):
        typer.echo(f"job {job_id} was over already")
        return
    status = jobs.wait_until_over(client, job_id)
    typer.echo(f"job {job_id} is {status.value.lower()}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
