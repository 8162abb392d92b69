"""Options that commands share, and how they become a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from salip_ray.config import Config, load_config
from salip_ray.config.loading import merge, parse_assignments, parse_options

Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With what: bundled (the default), paper-2d, paper-3d, paper-bundled, or a YAML file.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one value, as in propose.points_per_side=32."
    ),
]
Mode = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODES",
        help="One or more of cascade (the default), unprompted, gt_sam; with commas.",
    ),
]
Manifest = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The run's manifest, where it is kept outside of OUTPUT."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, for logs.")]
InputOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="fsspec storage option of INPUT, as in anon=true."),
]
OutputOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="The same for OUTPUT, as in endpoint_url=https://s3.example.org."
    ),
]

WeightsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="The same for the weights, where they are a URI."),
]


def make_config(
    task: str,
    *,
    preset: str | None = None,
    assignments: Iterable[str] | None = None,
    modes: Iterable[str] | None = None,
    input_options: Iterable[str] | None = None,
    output_options: Iterable[str] | None = None,
) -> Config:
    """The configuration that a command line asks for.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    overrides = list(assignments or ())
    if wanted := [mode.strip() for text in modes or () for mode in text.split(",")]:
        overrides.append(f"run.modes=[{', '.join(wanted)}]")
    changes = parse_assignments(overrides)
    for place, options in (("input", input_options), ("output", output_options)):
        if given := storage_options(place, options):
            changes = merge(changes, {"storage": {place: given}})
    return load_config(task, preset=preset, overrides=changes)


def storage_options(place: str, options: Iterable[str] | None) -> dict[str, Any]:
    """The storage options of a place, for a command that has no configuration.

    Raises:
        ConfigError: an option is not ``key=value``.
    """
    return parse_options(place, options or ())
