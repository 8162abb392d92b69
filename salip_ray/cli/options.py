"""Options that commands share, and how they become a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from salip_ray.config import Config, load_config
from salip_ray.config.loading import parse_assignments
from salip_ray.errors import ConfigError

Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With what: bundled (the default), paper-2d, paper-3d, or a YAML file.",
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
    for place, options in (("input", input_options), ("output", output_options)):
        overrides += [f"storage.{place}.{option}" for option in _checked(place, options)]
    return load_config(task, preset=preset, overrides=overrides)


def storage_options(place: str, options: Iterable[str] | None) -> dict[str, Any]:
    """The storage options of a place, for a command that has no configuration.

    Raises:
        ConfigError: an option is not ``key=value``.
    """
    return parse_assignments(_checked(place, options))


def _checked(place: str, options: Iterable[str] | None) -> list[str]:
    given = list(options or ())
    for option in given:
        key, equals, _ = option.partition("=")
        if not key.strip() or not equals:
            # What was given may be a secret, so it is not shown.
            raise ConfigError(f"--{place}-option must look like key=value")
    return given
