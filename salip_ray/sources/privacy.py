"""Keeping names of files, which often are names of patients, out of what is written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from salip_ray.config import PrivacyConfig
from salip_ray.sources.formats import IMAGE_SUFFIXES
from salip_ray.sources.formats.names import suffix

_SCHEME = "id:"
_PATH = re.compile(r"(?:\w[\w+.-]*:/)?/\S*")
#: What is said of a reference mask after its path. A path may hold spaces, so this alone tells
#: where it ends; of a message that says anything else nothing is kept.
_OF_MASK = re.compile(
    r"\breference mask\b(?:.*( (?:"
    r"has \d+ x \d+ pixels, its image \d+ x \d+"
    r"|has \d+ \w+(?: slices)?, (?:its image \d+|slice \d+ is wanted)"
    r"|has pixels of [-+.e\d]+ x [-+.e\d]+ mm, but its image of [-+.e\d]+ x [-+.e\d]+ mm:"
    r" it is not on the image's grid"
    r"|must hold one whole number a pixel, found \w+ of shape \[[\d, ]*\]"
    r"|is NIfTI, but its image is not"
    r"|is a folder|does not exist|was refused)$"
    r"| cannot be read| could not be fetched(?:: (?:HTTP \d+|\w+(?=:)))?).*|.*)",
    re.DOTALL,
)
#: Other names may be those of DICOM files, which often have no suffix, or a UID's digits.
_NOT_DICOM = IMAGE_SUFFIXES - {".dcm", ".dicom"}


def hides_uri(uri: str, privacy: PrivacyConfig) -> bool:
    """Whether the URI of an image stays out of the output."""
    if privacy.hash_uris == "auto":
        return suffix(uri) not in _NOT_DICOM
    return privacy.hash_uris


def pseudonym(image_id: str) -> str:
    """What stands in the place of a URI: ``id:`` and the image's id."""
    return f"{_SCHEME}{image_id}"


def is_pseudonym(uri: str) -> bool:
    """Whether a row's ``uri`` is not a URI, but stands for one."""
    return uri.startswith(_SCHEME)


def scrub(message: str, names: Iterable[str | None], instead: str) -> str:
    """A message without the given locations, nor anything else that looks like a path.

    Of the path of a reference mask no part is left, not even where it holds spaces.
    """
    for name in names:
        if name:
            message = message.replace(name, instead)
    message = _OF_MASK.sub(lambda found: f"reference mask ...{found[1] or ''}", message)
    return _PATH.sub("...", message)
