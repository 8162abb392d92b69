"""Splits that never tear a group apart: the slices of a volume, the images of a patient."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence

from salip_ray.errors import ConfigError
from salip_ray.sources.formats.names import split_member

GroupBy = str | Callable[[str], str]


def group_key(by: GroupBy) -> Callable[[str], str]:
    r"""How the group of an image follows from its URI.

    Args:
        by: ``"image"`` (the file: slices and frames of one file stay together), ``"folder"`` (the
            folder it lies in, of a member that in its archive), a regular expression whose match
            (its first group, where it has one) is the key, as ``r"patient\d+"``, or a function.

    Raises:
        ConfigError: the expression is not one.
    """
    if callable(by):
        return by
    if by == "image":
        return str
    if by == "folder":
        return _folder
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ConfigError(f"group_by {by!r} is not a regular expression: {error}") from None

    def key(uri: str) -> str:
        match = pattern.search(uri)
        if match is None:
            raise ConfigError(
                f"group_by {by!r} does not match {uri}: every image needs a group, "
                "or a patient could end up on both sides of a split"
            )
        return match[1] if pattern.groups else match[0]

    return key


def _folder(uri: str) -> str:
    member, archive = split_member(uri)
    folder = member.rpartition("/")[0]
    return f"{folder}::{archive}" if archive else folder


def split(
    uris: Sequence[str], shares: Mapping[str, float], *, seed: int = 0, group_by: GroupBy = "image"
) -> dict[str, list[int]]:
    """Indices of each part, every group in one part only.

    Groups are shuffled by a hash of seed and key, so that the order of the images does not matter,
    and dealt out until each part has its share of the images, as nearly as whole groups allow.

    Args:
        uris: the images.
        shares: part -> share; they add up to 1.
        seed: another one gives another split.
        group_by: see :func:`group_key`.

    Raises:
        ConfigError: the shares are not positive or do not add up to 1, or there are fewer groups
            than parts.
    """
    if not shares or any(share <= 0 for share in shares.values()):
        raise ConfigError(f"shares must be above 0, found {dict(shares)}")
    if not math.isclose(total := sum(shares.values()), 1.0, abs_tol=1e-6):
        raise ConfigError(f"shares must add up to 1, found {total:g}: {dict(shares)}")
    key = group_key(group_by)
    groups: dict[str, list[int]] = {}
    for index, uri in enumerate(uris):
        groups.setdefault(key(uri), []).append(index)
    if len(groups) < len(shares):
        raise ConfigError(
            f"{len(groups)} groups cannot be split into {len(shares)} parts: "
            f"group_by {group_by!r} puts too many images together"
        )
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    parts: dict[str, list[int]] = {name: [] for name in shares}
    # The largest part last, so that the small ones get their groups before it takes all.
    small_first = sorted(shares, key=lambda name: shares[name])
    waiting = list(order)
    for number, name in enumerate(small_first):
        still_to_serve = len(small_first) - number - 1
        wanted = shares[name] * len(uris)
        while waiting and (
            still_to_serve == 0
            or not parts[name]
            or (
                len(waiting) > still_to_serve
                and len(parts[name]) + len(groups[waiting[0]]) / 2 <= wanted
            )
        ):
            parts[name] += groups[waiting.pop(0)]
    return {name: sorted(indices) for name, indices in parts.items()}
