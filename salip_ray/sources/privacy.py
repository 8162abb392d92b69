"""Keep names of files, which often are names of patients, out of outputs and messages."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterable, Iterator

from salip_ray.config import PrivacyConfig
from salip_ray.errors import InputError
from salip_ray.sources.decode import NOT_DICOM_SUFFIXES
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.locations import image_id, public_uri

_SCHEME = "id:"
_PATH = re.compile(r"(?:\w[\w+.-]*:/)?/\S*")


def hides_uri(uri: str, privacy: PrivacyConfig) -> bool:
    """Return True if the URI of an image stays out of the output."""
    if privacy.hash_uris == "auto":
        return suffix(uri) not in NOT_DICOM_SUFFIXES
    return privacy.hash_uris


def pseudonym(image_id: str) -> str:
    """Return what is written instead of a URI: ``id:`` and the image's id."""
    return f"{_SCHEME}{image_id}"


def is_pseudonym(uri: str) -> bool:
    """Return True if a row's ``uri`` is a pseudonym."""
    return uri.startswith(_SCHEME)


@contextlib.contextmanager
def unnamed_errors(address: str, privacy: PrivacyConfig) -> Iterator[None]:
    """Have InputErrors about one file name its pseudonym, if its URI is to be hidden."""
    try:
        yield
    except InputError as error:
        uri = public_uri(address)
        if not hides_uri(uri, privacy):
            raise
        raise InputError(scrub(str(error), (address, uri), pseudonym(image_id(uri)))) from None


def scrub(message: str, names: Iterable[str | None], instead: str) -> str:
    """Return a message without the given locations and anything else that looks like a path.

    Args:
        message: of an error.
        names: locations. They may hold spaces, so that their end cannot be told by their looks. Of
            each the last part is removed as well.
        instead: replaces them.
    """
    for name in filter(None, names):
        for part in (name, public_uri(name), posixpath.basename(public_uri(name))):
            message = message.replace(part, instead)
    return _PATH.sub("...", message)
