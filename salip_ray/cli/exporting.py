"""Options that the commands of ``salip-ray export`` share, and how they open labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salip_ray.cli.options import Manifest, repeatable, storage_option, storage_options
from salip_ray.wording import counted

if TYPE_CHECKING:
    from salip_ray.datasets.exports.cases import Split
    from salip_ray.datasets.pseudo_labels import PseudoLabels

Output = Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")]
Dest = Annotated[str, typer.Argument(help="New or empty location, or an export to resume.")]
Classes = Annotated[
    list[str] | None, repeatable("--class", metavar="LABEL", help="Only this class.")
]
ImagesRoot = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER", help="New location of the images' common folder, if they have moved."
    ),
]
MinConfidence = Annotated[
    float, typer.Option(min=0, max=1, help="Leave out images with a label of lower confidence.")
]
MinPresence = Annotated[
    float, typer.Option(min=0, max=1, help="Leave out images with a class of lower presence.")
]
MinArea = Annotated[
    float,
    typer.Option(
        min=0, help="Leave out images with a smaller label: a share of the image up to 1, else px."
    ),
]
LabelsOption = Annotated[list[str] | None, storage_option("LABELS")]
ImagesOption = Annotated[list[str] | None, storage_option("the images")]
DestOption = Annotated[list[str] | None, storage_option("DEST")]


@dataclass(frozen=True)
class Export:
    """The labels and destination of one export. ``keywords`` are arguments of every format."""

    labels: PseudoLabels
    dest: str
    split: Split
    storage_options: dict[str, Any]

    @property
    def keywords(self) -> dict[str, Any]:
        """Return the split and the storage options of the destination."""
        return {"split": self.split, "storage_options": self.storage_options}


def _opened(
    labels: Output,
    dest: Dest,
    min_confidence: MinConfidence = 0.0,
    min_presence: MinPresence = 0.0,
    min_area: MinArea = 0.0,
    negatives: Annotated[
        bool, typer.Option("--negatives", help="Include images without a label, as negatives.")
    ] = False,
    reviewed: Annotated[
        bool,
        typer.Option("--reviewed", help="Only images whose labels people accepted or corrected."),
    ] = False,
    classes: Classes = None,
    ignore_disagreement: Annotated[
        bool,
        typer.Option(
            "--ignore-disagreement",
            help="Set pixels where candidate and refined mask differ to 255 (ignore).",
        ),
    ] = False,
    images_root: ImagesRoot = None,
    val: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the images for validation.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    group_by: Annotated[
        str,
        typer.Option(
            help="What a split keeps together: image (and all slices of a volume), folder, or a "
            "regular expression on the URI such as 'patient\\d+'."
        ),
    ] = "image",
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> Export:
    """Open the labels. The parameters are the options that all formats share."""
    from salip_ray.datasets.exports.cases import Split
    from salip_ray.datasets.pseudo_labels import PseudoLabels

    opened = PseudoLabels(
        labels,
        min_confidence=min_confidence,
        min_presence=min_presence,
        min_area=min_area,
        negatives=negatives,
        reviewed=reviewed,
        classes=classes or None,
        ignore_disagreement=ignore_disagreement,
        images_root=images_root,
        storage_options=storage_options("labels", labels_option),
        image_options=storage_options("images", images_option),
        manifest=manifest,
    )
    split = Split(val=val, seed=seed, group_by=group_by)
    return Export(opened, dest, split, storage_options("dest", dest_option))


def options_of(
    opened: Callable[..., Any], *, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Return a decorator that makes a command of the options of ``opened`` and of a function.

    The function takes the result of ``opened`` and its own options.

    Args:
        opened: its parameters are options that several commands share.
        without: those that the command does not support.
    """
    shared = [
        parameter
        for parameter in inspect.signature(opened, eval_str=True).parameters.values()
        if parameter.name not in without
    ]

    def decorate(write: Callable[..., Any]) -> Callable[..., None]:
        _, *own = inspect.signature(write, eval_str=True).parameters.values()

        @wraps(write)
        def command(**given: Any) -> None:
            mine = {parameter.name: given.pop(parameter.name) for parameter in own}
            write(opened(**given), **mine)

        # Typer reads a command's options from its signature and annotations.
        both = [*shared[:2], *own, *shared[2:]]
        command.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
        return command

    return decorate


def with_shared_options(
    write: Callable[..., int], *, without: tuple[str, ...] = ()
) -> Callable[..., None]:
    """Return a command that takes the shared options and those of ``write``, and reports.

    Args:
        write: takes an :class:`Export` and the options of its format; returns the number of images.
        without: shared options that this format does not support.
    """

    @wraps(write)
    def reported(export: Export, **own: Any) -> None:
        from salip_ray.datasets.selection import describe_left_out

        written = write(export, **own)
        report_notes(describe_left_out(export.labels.left_out))
        report_written(written, export.dest)

    return options_of(_opened, without=without)(reported)


def report_written(written: int, dest: str, noun: str = "image") -> None:
    """Print how many items an export has written."""
    typer.echo(f"{counted(written, noun)} in {dest}")


def report_notes(notes: Iterable[str]) -> None:
    """Print notes for the user on stderr."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)
