"""The review page: one self-contained HTML file that saves a file of decisions."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from salip_ray.datasets.exports import palette
from salip_ray.datasets.exports.cases import case_name
from salip_ray.datasets.index import Entry, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError
from salip_ray.review.decision_file import FORMAT, REASONS, VERSION, output_digest
from salip_ray.review.pictures import byte_limit, encode, encode_deep
from salip_ray.review.runs import pack

#: The scripts of the page, joined in this order into one.
_SCRIPTS = ("runs.js", "store.js", "stage.js", "review.js")


@dataclass(frozen=True)
class Page:
    """A review page, and the images that could not be shown.

    Attributes:
        data: the HTML file.
        shown: number of images on it.
        left_out: why images are missing on it, one message each.
    """

    data: bytes
    shown: int
    left_out: Sequence[str]


@dataclass(frozen=True)
class _Item:
    about: dict[str, Any]
    picture: str
    label_map: str
    deep: str | None = None  # grey values


def make_page(labels: PseudoLabels, entries: Sequence[Entry], title: str) -> Page:
    """Return the review page of some images.

    Args:
        labels: the labels.
        entries: the images, in the order of the page.
        title: heading of the page.

    Raises:
        InputError: no image can be shown.
    """
    items: list[_Item] = []
    left_out: list[str] = []
    volumes: dict[str, int] = {}
    limit = byte_limit(len(entries))
    for entry in entries:
        try:
            items.append(_item(labels, entry, limit))
            if entry.volume is not None:
                items[-1].about["volume"] = volumes.setdefault(entry.volume, len(volumes))
        except InputError as problem:
            left_out.append(str(problem))
    if not items:
        raise InputError(left_out[0] if left_out else "there is no image to review")
    about = {
        "format": FORMAT,
        "version": VERSION,
        "output": output_digest(labels.output),
        "title": title,
        "ignore": labels.ignore_index,
        "reasons": REASONS,
        "classes": [
            {"id": class_id, "label": label, "colour": _colour(class_id)}
            for label, class_id in labels.class_ids.items()
        ],
        "ignoreColour": palette.colours()[palette.IGNORE],
        "items": [item.about for item in items],
    }
    return Page(b"".join(_render(about, items, title)), len(items), left_out)


def _item(labels: PseudoLabels, entry: Entry, limit: int) -> _Item:
    sample = labels.sample(entry)
    standing = labels.reader.reviews.standing(entry.image_id, labels.class_ids.values())
    about: dict[str, Any] = {
        "id": entry.image_id,
        "name": case_name(entry),
        "uri": entry.uri,
        "height": entry.height,
        "width": entry.width,
        "figures": {
            labels.class_ids[label]: {
                "confidence": json_figure(figures.confidence, 3),
                "area": json_figure(figures.area / (entry.height * entry.width), 5),
            }
            for label, figures in entry.figures.items()
        },
        # Accepting a class that a person drew must save what was drawn.
        "drawn": [i for i, decision in standing.items() if decision.verdict == "corrected"],
    }
    deep = None
    values = labels.reader.images.intensities(entry.picture)
    if values is not None and (grey := encode_deep(values, sample["image"], limit)) is not None:
        fields = asdict(grey)
        deep = fields.pop("data")
        about["deep"] = fields
    return _Item(about, encode(sample["image"], limit), pack(sample["labels"]), deep)


def _colour(class_id: int) -> Sequence[int]:
    colours = palette.colours()
    return colours[class_id if class_id < palette.IGNORE else 1 + class_id % 254]


def _render(about: dict[str, Any], items: Sequence[_Item], title: str) -> Iterator[bytes]:
    source = _environment().loader.get_source  # type: ignore[union-attr]
    text: Callable[[str], str] = lambda name: source(_environment(), name)[0]  # noqa: E731
    script = '(() => {\n"use strict";\n' + "\n".join(text(name) for name in _SCRIPTS) + "})();"
    style = text("review.css")
    parts = (
        _environment()
        .get_template("page.html")
        .generate(
            about=about,
            items=items,
            title=title,
            style=Markup(style),  # noqa: S704 (ours)
            style_hash=_hash(style),
            script=Markup(script),  # noqa: S704 (ours)
            script_hash=_hash(script),
        )
    )
    return (part.encode() for part in parts)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("salip_ray.review"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
