"""``salip-ray weights``: list the official checkpoints and fetch them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from salip_ray.cli.files import require_folder, writing
from salip_ray.cli.options import WeightsOption, storage_options
from salip_ray.models.checkpoints import CHECKPOINTS

weights = typer.Typer(
    no_args_is_help=True,
    help="List and fetch official checkpoints. The bundled models need none.",
)


@weights.command(name="list")
def list_weights() -> None:
    """List addresses, sizes, SHA-256 and licences of the official files."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("name", "MB", "licence", "used as"):
        table.add_column(name, justify="right" if name == "MB" else "left")
    for name, file in CHECKPOINTS.items():
        table.add_row(name, f"{file.size / 1e6:,.0f}", file.licence, file.used_as)
    console.print(table)
    for name, file in CHECKPOINTS.items():
        # Plain lines that are not wrapped, to be copied.
        typer.echo(f"{name}\n  {file.uri}\n  sha256 {file.sha256}")


@weights.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_URI",
            help="A name from salip-ray weights list, or any URI; with --preset, a local folder.",
        ),
    ],
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Expected SHA-256 of the file.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Copy all weights of a preset into a folder."),
    ] = None,
    shown_as: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="PATH", help="Path of the folder on the machine that will use it."
        ),
    ] = None,
    weights_option: WeightsOption = None,
) -> None:
    """Fetch a file into the cache ($SALIP_RAY_CACHE), verify it, and print its path.

    With --preset, all weights of a preset are copied into a folder, for a machine without network
    access, with a file preset.yaml that names the copies: label --preset DIR/preset.yaml.

    Example: salip-ray weights fetch --preset paper-2d ./weights --as /mnt/weights
    """
    from salip_ray.errors import InputError
    from salip_ray.models.weights import fetch as fetch_file

    options = storage_options("weights", weights_option)
    if preset is not None:
        if sha256 is not None:
            raise InputError("--sha256 is for one file; a preset has its own")
        _fetch_preset(preset, Path(name), shown_as, options)
        return
    if shown_as is not None:
        raise InputError("--as needs --preset")
    known = CHECKPOINTS.get(name)
    expected = sha256 or (known.sha256 if known else None)
    path = fetch_file(known.uri if known else name, sha256=expected, storage_options=options)
    typer.echo(path)


def _fetch_preset(preset: str, folder: Path, shown_as: str | None, options: dict[str, str]) -> None:
    """Copy the weights of a preset, and write the preset that uses the copies."""
    import yaml

    from salip_ray.config.assignments import merge
    from salip_ray.config.loading import load_config, preset_settings
    from salip_ray.models.offline import copy_weights

    require_folder("folder", folder)
    task = {"task": {"name": "any", "prompts": {"any": ["anything"]}}}
    untaught = {"clip": {"allow_untaught": True}, "storage": {"weights": options}}
    config = load_config(task, preset=preset, overrides=untaught)
    where = shown_as or str(folder.resolve())
    with writing(f"folder {folder}"):
        changes = copy_weights(config, folder, where, report=typer.echo)
    if not changes:
        typer.echo(f"{preset} needs no weights but those of the package")
    settings = merge(preset_settings(preset), changes)
    file = folder / "preset.yaml"
    with writing(str(file)):
        file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    typer.echo(f"use it there with --preset {where}/{file.name}")
