"""Options that several commands share, and how they become a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salip_ray.errors import ConfigError

if TYPE_CHECKING:
    from salip_ray.config import Config


def repeatable(*names: str, metavar: str, help: str, **options: Any) -> Any:  # noqa: A002
    """Return an option whose help text says that it can be given several times."""
    return typer.Option(*names, metavar=metavar, help=f"{help} Can be repeated.", **options)


def storage_option(location: str, example: str = "") -> Any:
    """Return an option that takes ``KEY=VALUE`` storage options of ``location``."""
    example = f", as in {example}" if example else ""
    return repeatable(metavar="KEY=VALUE", help=f"fsspec storage option of {location}{example}.")


def _complete(folder: str, incomplete: str) -> list[str]:
    from salip_ray.config import shipped_configs

    names = sorted(path.stem for path in (shipped_configs() / folder).glob("*.yaml"))
    return [name for name in names if name.startswith(incomplete)]


def _complete_task(incomplete: str) -> list[str]:
    return _complete("", incomplete)


def _complete_preset(incomplete: str) -> list[str]:
    return _complete("presets", incomplete)


def _complete_mode(incomplete: str) -> list[str]:
    from salip_ray.config import MODES

    return [mode for mode in MODES if mode.startswith(incomplete)]


Task = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="TASK",
        help="What to label: a name from salip-ray tasks (lungs, brain, ...), or a YAML file.",
        autocompletion=_complete_task,
    ),
]
TaskArgument = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="A name from salip-ray tasks (lungs, brain, ...), or a YAML file.",
        autocompletion=_complete_task,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Models and recipe: bundled (the default), medsam-biomedclip, paper-2d, paper-3d, "
        "paper-bundled, salip-2d, salip-3d, or a YAML file.",
        autocompletion=_complete_preset,
    ),
]
Set = Annotated[
    list[str] | None,
    repeatable(
        "--set", metavar="KEY=VALUE", help="Change one setting, as in propose.points_per_side=32."
    ),
]
Mode = Annotated[
    list[str] | None,
    repeatable(
        metavar="MODES",
        help="cascade (the default), unprompted, gt_sam, or several with commas.",
        autocompletion=_complete_mode,
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="MASKS", help="Reference masks for gt_sam: a folder or index.csv."),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        metavar="BOXES",
        help="Boxes or points to segment instead of proposing: COCO, CSV, Parquet, or a folder of "
        "YOLO files or masks.",
    ),
]
Candidates = Annotated[
    str | None,
    typer.Option(
        metavar="MASKS",
        help="Masks or boxes made elsewhere, which CLIP ranks with the proposed ones. Forms as for "
        "--prompts.",
    ),
]
Extend = Annotated[
    bool, typer.Option("--extend", help="Label images that INPUT has gained, into new shards.")
]
Include = Annotated[
    list[str] | None,
    repeatable(metavar="PATTERN", help="Label only matching files, as in 'images/*.png'."),
]
Exclude = Annotated[
    list[str] | None,
    repeatable(metavar="PATTERN", help="Leave out matching files, as in '*_mask.png'."),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Label the first N files in order of their names."),
]
NewManifest = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write manifest.parquet, which names all images, here."),
]
Manifest = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The manifest, if the job was started with --manifest."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
InputOption = Annotated[list[str] | None, storage_option("INPUT", "anon=true")]
OutputOption = Annotated[
    list[str] | None, storage_option("OUTPUT", "endpoint_url=https://s3.example.org")
]
WeightsOption = Annotated[list[str] | None, storage_option("the weights")]


def make_config(
    task: str,
    *,
    preset: str | None = None,
    assignments: Iterable[str] | None = None,
    modes: Iterable[str] | None = None,
    input_options: Iterable[str] | None = None,
    output_options: Iterable[str] | None = None,
) -> Config:
    """Return the configuration that a command line asks for.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    from salip_ray.config import MODES, StorageConfig, load_config
    from salip_ray.config.assignments import merge

    overrides = list(assignments or ())
    if wanted := [mode.strip() for text in modes or () for mode in text.split(",")]:
        if unknown := [mode for mode in wanted if mode not in MODES]:
            raise ConfigError(f"--mode {unknown[0]!r} must be one of {', '.join(MODES)}")
        overrides.append(f"run.modes=[{', '.join(wanted)}]")
    config = load_config(task, preset=preset, overrides=overrides)
    given = {
        "input": storage_options("input", input_options),
        "output": storage_options("output", output_options),
    }
    storage = merge(config.storage.model_dump(), given)
    return config.model_copy(update={"storage": StorageConfig.model_validate(storage)})


def require_mode_for_reference(config: Config, reference: str | None) -> None:
    """Raise ConfigError if reference masks are given but no mode uses them."""
    if reference is not None and "gt_sam" not in config.run.modes:
        raise ConfigError("--reference is for the mode gt_sam: add --mode cascade,gt_sam")


def storage_options(location: str, options: Iterable[str] | None) -> dict[str, Any]:
    """Return the storage options given as ``--LOCATION-option``.

    Raises:
        ConfigError: an option is not ``key=value``.
    """
    from salip_ray.config.assignments import parse_options

    return parse_options(location, options or ())
