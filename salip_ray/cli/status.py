"""``salip-ray status``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from salip_ray.cli.options import Manifest, OutputOption, storage_options
from salip_ray.errors import ConfigError, JobError
from salip_ray.wording import counted

if TYPE_CHECKING:
    from salip_ray.output.status import Status


def status(
    output: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --follow, one object per line.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Print a line at every change, until the job ends."),
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two checks, with --follow.")
    ] = 10.0,
    wait: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds to wait for the job to start, with --follow."),
    ] = 0.0,
    manifest: Manifest = None,
    output_option: OutputOption = None,
) -> None:
    """Show the progress of the job that writes OUTPUT. Reads only OUTPUT, so any machine will do.

    With --follow, the exit status is 0 once all shards are committed, and 1 if no driver is left.

    Example: salip-ray status s3://bucket/labels --follow
    """
    options = storage_options("output", output_option)
    if wait and not follow:
        raise ConfigError("--wait needs --follow")
    if not follow:
        from salip_ray.output.status import read_status

        current = read_status(output, options, manifest=manifest)
        typer.echo(json.dumps(current.to_json(), indent=2) if as_json else _lines(current))
        return
    from salip_ray.output.status import follow as follow_status

    last = None
    for last in _changes(follow_status(output, options, manifest=manifest, every=every, wait=wait)):
        typer.echo(json.dumps(last.to_json()) if as_json else _line(last))
    if last is not None and last.state == "stopped":
        raise JobError(
            f"no driver is running: {last.committed:,} of {counted(last.shards, 'shard')} of "
            f"{last.output} are committed. Run the original command again to resume"
        )


def _changes(statuses: Iterator[Status]) -> Iterator[Status]:
    """Yield each status that differs from the one before."""
    shown = None
    for status in statuses:
        driver = status.driver and (status.driver.host, status.driver.pid)
        current = (status.state, status.committed, status.failed, status.stages, driver)
        if current != shown:
            yield status
        shown = current


def _line(status: Status) -> str:
    """Return a status as one line of a log."""
    text = f"{datetime.now():%H:%M:%S} {status.state}: {_done(status)}; {status.failed:,} failed"
    if rate := _rate(status):
        text += f"; {rate}"
    if status.stages:
        text += f" ({', '.join(f'{stage} {done:,}' for stage, done in status.stages.items())})"
    return text


def _lines(status: Status) -> str:
    """Return a status as a few lines."""
    lines = [
        f"{status.output}: {status.state}",
        f"  done    {_done(status)}",
        f"  failed  {counted(status.failed, 'image')}",
    ]
    if status.driver is not None:
        lines.append(
            f"  driver  process {status.driver.pid} on {status.driver.host} since "
            f"{status.driver.started}; last update {status.driver.renewed}"
        )
    if rate := _rate(status):
        lines.append(f"  rate    {rate}")
    if status.state == "stopped":
        lines.append("  No driver is running. Run the original command again to resume.")
    return "\n".join(lines)


def _done(status: Status) -> str:
    return (
        f"{status.done:,} of {counted(status.images, 'image')}, "
        f"{status.committed:,} of {counted(status.shards, 'shard')}"
    )


def _rate(status: Status) -> str:
    if not status.images_per_second or status.seconds_left is None:
        return ""
    left = timedelta(seconds=round(status.seconds_left))
    return f"{status.images_per_second:,.2f} images/s, {left} left"
