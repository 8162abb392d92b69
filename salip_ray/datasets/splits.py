"""Splits that keep groups whole: the slices of a volume, the images of a patient."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence

from salip_ray.errors import ConfigError
from salip_ray.sources.formats.names import split_member
from salip_ray.wording import counted

GroupBy = str | Callable[[str], str]


def group_key(by: GroupBy) -> Callable[[str], str]:
    r"""Return the function that maps the URI of an image to its group.

    Args:
        by: ``"image"`` (the file: its slices and frames stay together), ``"folder"`` (its folder;
            for a member of an archive, the folder in the archive), a regular expression whose match
            is the group (or its first group, if it has one), as ``r"patient\d+"``, or a function.

    Raises:
        ConfigError: the expression is invalid. The returned function raises it for a URI that the
            expression does not match.
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
            raise ConfigError(f"group_by {by!r} does not match {uri}: every image needs a group")
        return match[1] if pattern.groups else match[0]

    return key


def _folder(uri: str) -> str:
    member, archive = split_member(uri)
    folder = member.rpartition("/")[0]
    return f"{folder}::{archive}" if archive else folder


def split(
    uris: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    group_by: GroupBy = "image",
    shown: Sequence[str] | None = None,
) -> dict[str, list[int]]:
    """Return the indices of each part; every group is in one part only.

    Groups are ordered by a hash of seed and key, so the order of the images does not matter. They
    are dealt out until each part has its share of the images, as closely as whole groups allow.

    Args:
        uris: the images.
        shares: part -> share; the shares add up to 1.
        seed: another seed gives another split.
        group_by: see :func:`group_key`.
        shown: what messages call each image, if not by its URI.

    Raises:
        ConfigError: the shares are not positive or do not add up to 1, an image has no group, or
            there are fewer groups than parts.
    """
    if not shares or any(share <= 0 for share in shares.values()):
        raise ConfigError(f"shares must be above 0, found {dict(shares)}")
    if not math.isclose(total := sum(shares.values()), 1.0, abs_tol=1e-6):
        raise ConfigError(f"shares must add up to 1, found {total:g}: {dict(shares)}")
    groups = _groups(uris, group_by, shown or uris)
    if len(groups) < len(shares):
        raise ConfigError(
            f"{counted(len(groups), 'group')} cannot be split into {len(shares)} parts: "
            f"group_by {group_by!r} puts too many images together"
        )
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    parts: dict[str, list[int]] = {name: [] for name in shares}
    # The largest part last, so that the small ones get their groups before it takes all.
    small_first = sorted(shares, key=lambda name: shares[name])
    waiting = list(order)
    for number, name in enumerate(small_first):
        parts_left = len(small_first) - number - 1
        wanted = shares[name] * len(uris)
        while waiting and (
            parts_left == 0
            or not parts[name]
            or (
                len(waiting) > parts_left
                and len(parts[name]) + len(groups[waiting[0]]) / 2 <= wanted
            )
        ):
            parts[name] += groups[waiting.pop(0)]
    return {name: sorted(indices) for name, indices in parts.items()}


def _groups(uris: Sequence[str], by: GroupBy, shown: Sequence[str]) -> dict[str, list[int]]:
    key = group_key(by)
    groups: dict[str, list[int]] = {}
    for index, uri in enumerate(uris):
        try:
            group = key(uri)
        except ConfigError as error:
            raise ConfigError(str(error).replace(uri, shown[index])) from None
        groups.setdefault(group, []).append(index)
    return groups
