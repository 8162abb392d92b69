"""``salip-ray reproduce``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from salip_ray.cli.options import Quiet, Set


class Dataset(StrEnum):
    """A dataset of the paper."""

    lungs = "lungs"
    fetal_head = "fetal-head"
    brain = "brain"


def reproduce(
    dataset: Annotated[Dataset, typer.Argument(help="lungs, fetal-head or brain.")],
    data: Annotated[
        Path, typer.Argument(help="Folder of the downloaded dataset; every node must see it.")
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the official weights; bundled tries the command without them.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="SaLIP's own JSON of sentences for the dataset."),
    ] = None,
    output: Annotated[
        str, typer.Option(help="New or empty location, or a reproduction to resume.")
    ] = "reproduction-output",
    seed: Annotated[int, typer.Option(help="Seed of the searches.")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Use the first N files in order of their names."),
    ] = None,
    assignments: Set = None,
    address: Annotated[
        str | None,
        typer.Option(help="Submit to this job server of a cluster, as in http://head:8265."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Reproduce the paper's Dice on a dataset, with its conventions and with ours.

    DATA holds the files as downloaded: CXR_png/NAME.png and masks/NAME_mask.png (lungs),
    NAME_HC.png and NAME_HC_Annotation.png (fetal-head), or NAME.nii.gz and NAME_ss.nii.gz (brain).
    Without weights, the command lists the files to download.

    Writes table.md (paper, faithful, ours) and figures.csv (every image). If it is stopped, run the
    same command again to resume.

    Example: salip-ray reproduce lungs ./cxr --weights ./weights --prompts lungs.json
    """
    if address is not None:
        _submit(dataset, data, output, weights, prompts, seed, limit, assignments or [], address)
    from salip_ray.reproduction.run import reproduce as run

    console = Console(quiet=quiet)
    table = run(
        dataset.value,
        data,
        output,
        weights=weights,
        prompts=prompts,
        seed=seed,
        limit=limit,
        assignments=assignments or (),
        quiet=quiet,
        report=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
    )
    typer.echo(table)


def _submit(
    dataset: Dataset,
    data: Path,
    output: str,
    weights: str | None,
    prompts: Path | None,
    seed: int,
    limit: int | None,
    assignments: list[str],
    address: str,
) -> None:
    """Run the command on a cluster, show its log, and exit with its status."""
    from salip_ray.cli.submit import follow
    from salip_ray.cluster import submit as jobs
    from salip_ray.reproduction.protocol import BUNDLED, PROTOCOLS, make_settings

    # Checked here, where a mistake is seen at once; the weights are checked on the cluster.
    make_settings(PROTOCOLS[dataset], BUNDLED, prompts, seed=seed, assignments=assignments)
    assert prompts is not None, "they have just been read"
    command = ["python", "-m", "salip_ray", "reproduce", dataset.value]
    command += [jobs.shown("DATA", str(data)), "--output", jobs.shown("--output", output)]
    command += ["--prompts", "prompts.json", "--seed", str(seed)]
    if limit is not None:
        command += ["--limit", str(limit)]
    if weights is not None:
        folder = weights if weights == BUNDLED else jobs.shown("--weights", weights)
        command += ["--weights", folder]
    for assignment in assignments:
        command += ["--set", assignment]
    client = jobs.connect(address)
    files = {"prompts.json": prompts.read_text(encoding="utf-8")}
    follow(client, jobs.submit_command(client, command, output, files=files), address)
