"""Keeping names of files, which often are names of patients, out of what is written."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from salip_ray.config import PrivacyConfig
from salip_ray.sources.formats import DICOM_SUFFIXES, IMAGE_SUFFIXES
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.locations import public_uri

_SCHEME = "id:"
_PATH = re.compile(r"(?:\w[\w+.-]*:/)?/\S*")
#: Other names may be those of DICOM files, which often have no suffix, or a UID's digits.
_NOT_DICOM = IMAGE_SUFFIXES - DICOM_SUFFIXES


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

    Args:
        message: what an error says.
        names: locations, which may hold spaces, so that their looks alone do not tell where they
            end. Neither they nor their last parts are left.
        instead: what stands for them.
    """
    for name in filter(None, names):
        for part in (name, public_uri(name), posixpath.basename(public_uri(name))):
            message = message.replace(part, instead)
    return _PATH.sub("...", message)
