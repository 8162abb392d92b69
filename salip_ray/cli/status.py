"""``salip-ray status``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from salip_ray.cli.options import Manifest, OutputOption, storage_options
from salip_ray.errors import ConfigError, JobError

if TYPE_CHECKING:
    from salip_ray.output.status import Status


def status(
    output: Annotated[str, typer.Argument(help="What salip-ray label writes; local, s3://, ...")],
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object on stdout; one a line with --follow.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="A line whenever the job has got on.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks, with --follow.")
    ] = 10.0,
    wait: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds a job may take to begin, with --follow."),
    ] = 0.0,
    manifest: Manifest = None,
    output_option: OutputOption = None,
) -> None:
    """Say how far the job of OUTPUT is, from the output alone, from any machine. Example:

    salip-ray status s3://bucket/labels

    With --follow it ends when the job does: exit status 0 where all is committed, 1 where nobody is
    at the job any more.
    """  # noqa: D415  (the example is shown as it stands)
    options = storage_options("output", output_option)
    if wait and not follow:
        raise ConfigError("--wait is for --follow")
    if not follow:
        from salip_ray.output.status import read_status

        found = read_status(output, options, manifest=manifest)
        typer.echo(json.dumps(found.to_json(), indent=2) if as_json else _lines(found))
        return
    from salip_ray.output.status import follow as watch

    last = None
    for last in _news(watch(output, options, manifest=manifest, every=every, wait=wait)):
        typer.echo(json.dumps(last.to_json()) if as_json else _line(last))
    if last is not None and last.state == "stopped":
        raise JobError(
            f"nobody is at the job of {last.output}: {last.committed:,} of {last.shards:,} shards "
            "are committed; the command it was begun with goes on from here"
        )


def _news(found: Iterator[Status]) -> Iterator[Status]:
    """What differs from what was shown last."""
    shown = None
    for status in found:
        driver = status.driver and (status.driver.host, status.driver.pid)
        news = (status.state, status.committed, status.failed, status.stages, driver)
        if news != shown:
            yield status
        shown = news


def _line(found: Status) -> str:
    said = (
        f"{datetime.now():%H:%M:%S} {found.state}: {found.done:,} of {found.images:,} images, "
        f"{found.committed:,} of {found.shards:,} shards; {found.failed:,} failed"
    )
    if found.images_per_second and found.seconds_left is not None:
        left = timedelta(seconds=round(found.seconds_left))
        said += f"; {found.images_per_second:,.2f} images/s, {left} left"
    if found.stages:
        said += f" ({', '.join(f'{stage} {done:,}' for stage, done in found.stages.items())})"
    return said


def _lines(found: Status) -> str:
    lines = [
        f"{found.output}: {found.state}",
        f"  done    {found.done:,} of {found.images:,} images, "
        f"{found.committed:,} of {found.shards:,} shards",
        f"  failed  {found.failed:,} images",
    ]
    if found.driver is not None:
        lines.append(
            f"  running on {found.driver.host}, process {found.driver.pid}, since "
            f"{found.driver.started}; last heard of {found.driver.renewed}"
        )
    if found.images_per_second and found.seconds_left is not None:
        left = timedelta(seconds=round(found.seconds_left))
        lines.append(f"  rate    {found.images_per_second:,.2f} images/s, {left} left")
    if found.state == "stopped":
        lines.append("  nobody is at it: the command it was begun with goes on from here")
    return "\n".join(lines)
