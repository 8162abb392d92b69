"""``salip-ray status``."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from salip_ray.cli.options import OutputOption, storage_options

if TYPE_CHECKING:
    from salip_ray.labels.status import Status


def status(
    output: Annotated[str, typer.Argument(help="What salip-ray label writes; local, s3://, ...")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    output_option: OutputOption = None,
) -> None:
    """Say how far the job of OUTPUT is, from the output alone, from any machine. Example:

    salip-ray status s3://bucket/labels
    """  # noqa: D415  (the example is shown as it stands)
    options = storage_options("output", output_option)
    from salip_ray.labels.status import read_status

    found = read_status(output, options)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else _lines(found))


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
