"""What the commands of ``salip-ray export`` share: their options, and how labels are opened."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salip_ray.cli.options import Manifest, storage_options

if TYPE_CHECKING:
    from salip_ray.datasets.exports.cases import Parts
    from salip_ray.datasets.pseudo_labels import PseudoLabels

Output = Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")]
Dest = Annotated[str, typer.Argument(help="New or empty place, or one to go on with.")]
Classes = Annotated[
    list[str] | None, typer.Option("--class", metavar="LABEL", help="Only this class; repeat it.")
]
ImagesRoot = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Where the images' common folder has moved to."),
]
LabelsOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="fsspec storage option of LABELS.")
]
ImagesOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="The same for the images.")
]
DestOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="The same for DEST.")
]


@dataclass(frozen=True)
class Export:
    """What a command exports, and where to; ``keywords`` are those that all forms take."""

    labels: PseudoLabels
    dest: str
    parts: Parts
    storage_options: dict[str, Any]

    @property
    def keywords(self) -> dict[str, Any]:
        """The split and the options of the destination."""
        return {"parts": self.parts, "storage_options": self.storage_options}


def _opened(
    labels: Output,
    dest: Dest,
    min_confidence: Annotated[
        float,
        typer.Option(min=0, max=1, help="Leave out images with a label less certain than this."),
    ] = 0.0,
    classes: Classes = None,
    ignore_disagreement: Annotated[
        bool,
        typer.Option(
            "--ignore-disagreement",
            help="Mark pixels where proposal and refined mask differ as ignore (255).",
        ),
    ] = False,
    images_root: ImagesRoot = None,
    val: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of images set aside as val.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    group_by: Annotated[
        str,
        typer.Option(
            help="What a split keeps together: image (a volume's slices, too), folder, or a "
            "regular expression on the URI such as 'patient\\d+'."
        ),
    ] = "image",
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> Export:
    """Open what the shared options say; its parameters are those options."""
    from salip_ray.datasets.exports.cases import Parts
    from salip_ray.datasets.pseudo_labels import PseudoLabels

    opened = PseudoLabels(
        labels,
        min_confidence=min_confidence,
        classes=classes or None,
        ignore_disagreement=ignore_disagreement,
        images_root=images_root,
        storage_options=storage_options("labels", labels_option),
        image_options=storage_options("images", images_option),
        manifest=manifest,
    )
    parts = Parts(val=val, seed=seed, group_by=group_by)
    return Export(opened, dest, parts, storage_options("dest", dest_option))


def with_shared_options(
    write: Callable[..., int], *, without: tuple[str, ...] = ()
) -> Callable[..., None]:
    """A command that takes the shared options and those of ``write``, and says what came of it.

    Args:
        write: takes an :class:`Export` and options of its own; returns the number of images.
        without: shared options that mean nothing to this form.
    """
    _, *own = inspect.signature(write, eval_str=True).parameters.values()
    shared = [
        parameter
        for parameter in inspect.signature(_opened, eval_str=True).parameters.values()
        if parameter.name not in without
    ]

    @wraps(write)
    def command(**given: Any) -> None:
        mine = {parameter.name: given.pop(parameter.name) for parameter in own}
        export = _opened(**given)
        say(write(export, **mine), export.dest)

    # Typer reads a command's options from its signature and annotations.
    both = [*shared[:2], *own, *shared[2:]]
    command.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
    return command


def say(written: int, dest: str, what: str = "images") -> None:
    """Print what came of an export."""
    typer.echo(f"{written:,} {what} in {dest}")
