"""What a listing holds, for people: how many files in which folders, and files like masks."""

from __future__ import annotations

import re
from collections import Counter

from salip_ray.config import PrivacyConfig
from salip_ray.sources.formats.names import stem
from salip_ray.sources.listing import Listing, relative
from salip_ray.sources.privacy import hides_uri

_MOST_FOLDERS = 5
_MASK_FOLDER = re.compile(
    r"(?:.*[ _-])?(?:gt|ground[ _-]?truths?|masks?|labels?(?:tr|ts)?|seg(?:mentations?)?|"
    r"annotations?)(?:[ _-].*)?",
    re.IGNORECASE,
)
_MASK_STEM = re.compile(r".*[ ._-](?:masks?|labels?|seg(?:mentation)?|gt)", re.IGNORECASE)


def describe_listing(listing: Listing, privacy: PrivacyConfig) -> list[str]:
    """Return lines about the folders of a listing, and a warning if files look like masks.

    Folders of files whose names are hidden are counted, not named.
    """
    folders: Counter[str] = Counter()
    hidden = 0
    masks: Counter[str] = Counter()
    for uri in listing.table["uri"].to_pylist():
        folder, slash, name = relative(uri, listing.root).rpartition("/")
        folders[folder + slash] += 1
        hides = hides_uri(uri, privacy)
        hidden += hides
        pattern = _mask_pattern(folder, name)
        if pattern and not hides:
            masks[pattern] += 1
    return [*_folders(folders, named=not hidden), *_warning(masks, listing.table.num_rows)]


def _folders(folders: Counter[str], *, named: bool) -> list[str]:
    files = sum(folders.values())
    if len(folders) < 2:
        return []
    line = f"{files:,} files in {len(folders):,} folders"
    if named:
        by_count = sorted(folders.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{name or './'} {count:,}" for name, count in by_count[:_MOST_FOLDERS]]
        more = len(folders) - _MOST_FOLDERS
        line += f": {', '.join(shown)}" + (f" and {more:,} more" if more > 0 else "")
    return [line]


def _mask_pattern(folder: str, name: str) -> str | None:
    """Return a pattern that excludes a file which looks like a mask, or None."""
    for part in reversed(folder.split("/")):
        if _MASK_FOLDER.fullmatch(part):
            return part
    if match := _MASK_STEM.fullmatch(stem(name)):
        return f"*{re.split(r'(?=[ ._-][^ ._-]*$)', match[0])[-1]}.*"
    return None


def _warning(masks: Counter[str], files: int) -> list[str]:
    count = sum(masks.values())
    if not count or count == files:  # a folder of which all is so called was meant
        return []
    patterns = [pattern for pattern, _ in masks.most_common(_MOST_FOLDERS)]
    options = " ".join(f"--exclude '{pattern}'" for pattern in patterns)
    some = f"{count:,} files look" if count > 1 else "1 file looks"
    return [f"warning: {some} like masks and will be labelled as images; to leave out: {options}"]
