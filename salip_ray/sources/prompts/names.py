"""Find the image that each name in a file of prompts is of.

A name is a whole URI, or a path of which the last parts count: ``train/a.txt`` is of
``images/train/a.png``, not of ``images/val/a.png``. Suffixes count only if they decide. Names are
compared in Unicode's composed form (NFC).
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from salip_ray.sources.formats.names import file_name, split_member, split_query, stem
from salip_ray.sources.locations import is_remote, normalise
from salip_ray.sources.reference_files import whole_key


@dataclass(frozen=True)
class Matches:
    """Names of prompts by image.

    Attributes:
        names: the name of each image that has one, by its whole key.
        unclear: for images that may be meant by a name, but not surely: why.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    unclear: Mapping[str, str] = field(default_factory=dict)


def match_names(names: Iterable[str], uris: Iterable[str]) -> Matches:
    """Return which image each name is of.

    An image and a name belong together if each has no better one: a whole URI is best, then the
    path with the most last parts in common, then the file name with its suffix.

    Args:
        names: of images, from :func:`spell`.
        uris: of the images of the input.
    """
    given = set(names)
    paths = sorted(name for name in given if not _is_whole(name))
    images = {whole_key(uri) for uri in uris}
    own = {image: image for image in images & given}
    names_by_tail, images_by_tail = _by_tail(paths), _by_tail(images)
    best_images = {name: _best(name, images_by_tail) for name in paths}
    unclear = {}
    for image in sorted(images - own.keys()):
        meant = [name for name in _best(image, names_by_tail) if image in best_images[name]]
        if len(meant) > 1:
            unclear[image] = f"it may be {len(meant)} images of these prompts"
        elif meant and len(best_images[meant[0]]) > 1:
            unclear[image] = f"{len(best_images[meant[0]])} images have the name of its prompts"
        elif meant:
            own[image] = meant[0]
    return Matches(own, unclear)


def spell(name: str) -> str:
    """Return the one spelling of a name: a whole key, or a path without empty parts."""
    if _is_whole(name):
        return whole_key(normalise(name))
    if "/" not in name and "\\" in name:  # from Windows
        name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in {"", ".", ".."}]
    return unicodedata.normalize("NFC", "/".join(parts))


def _is_whole(name: str) -> bool:
    return is_remote(name) or name.startswith(("/", "~", "file://"))


def _by_tail(names: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    listed: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        for tail in _tails(name):
            listed[tail].append(name)
    return dict(listed)


def _best(name: str, by_tail: Mapping[tuple[str, ...], list[str]]) -> list[str]:
    """Return the names with the most last parts in common, those with its suffix if there are."""
    best: list[str] = []
    for tail in _tails(name):
        if tail not in by_tail:
            break
        best = by_tail[tail]
    if len(best) < 2:
        return best
    same = [other for other in best if file_name(other) == file_name(name)]
    return same or best


def _tails(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the stem of a path, then one more of its folders at a time."""
    path = split_query(split_member(name)[0])[0]
    folders, _, last = (path.partition("://")[2] or path).rpartition("/")
    parts = [*filter(None, folders.split("/")), stem(last)]
    for start in range(len(parts) - 1, -1, -1):
        yield tuple(parts[start:])
