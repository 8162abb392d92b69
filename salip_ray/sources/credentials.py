"""What of a URI may be written: everything but what gives access.

Query parameters are written only if they are known to say which object is meant. Signatures and
parameters that look like secrets are dropped. Of any other parameter a hash is written, so that two
objects that differ in it keep different URIs.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_plus

from salip_ray.sources.formats.names import split_query

_SIGNED_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-obs-", "q-")
#: Query parameters of AWS (v2), Google (v2), Azure SAS and CloudFront signatures, in lower case.
_SIGNED_NAMES = frozenset(
    {"awsaccesskeyid", "googleaccessid", "signature", "expires", "policy", "key-pair-id"}
    | {"sig", "se", "sp", "sv", "sr", "st", "spr", "sip", "si", "ss", "srt", "saoid", "suoid"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv", "scid", "sdd"}
)
#: Parameters that say which object is meant, or which part or form of it.
_PUBLIC_NAMES = frozenset(
    {"versionid", "version", "v", "generation", "rev", "revision", "ref", "snapshot"}
    | {"id", "uid", "uuid", "oid", "name", "file", "filename", "path", "folder", "object"}
    | {"image", "imageid", "image_id", "img", "page", "frame", "framenumber", "slice", "index"}
    | {"n", "i", "x", "y", "z", "study", "series", "instance", "studyuid", "seriesuid"}
    | {"objectuid", "requesttype", "contenttype", "transfersyntax", "format", "type", "x-id"}
    | {"size", "width", "height", "w", "h", "rows", "columns", "scale", "level", "quality"}
    | {"windowcenter", "windowwidth", "raw", "alt", "download", "date", "year", "dataset"}
)
_SECRET = re.compile(
    r"token|secret|passw|pwd|auth|jwt|cred|signature|sig$|key|session|ticket|bearer|hmac|otp$"
    r"|access|code$|nonce|sid$"
)
_HASHED = re.compile(r"~[0-9a-f]{12}")
_PLAIN_NAME = re.compile(r"[\w.-]{1,40}")
_PATH_PARAMETER = re.compile(r";([^;/?=]*)=[^;/?]*")
_URI = re.compile(r"\b[a-z][a-z0-9+.-]*://(?:(?!::)[^\s'\"<>])*", re.IGNORECASE)


def without_credentials(uri: str) -> str:
    """Return a URI without passwords, signatures and secrets.

    Equal for a URI whose signature was renewed, and stable: a public URI stays unchanged.

    Args:
        uri: normalised, with a scheme, and not that of an archive member.
    """
    scheme, _, rest = uri.partition("://")
    uri = _without_password(scheme, rest)
    path, query = split_query(uri)
    if scheme in {"http", "https"}:
        path = _PATH_PARAMETER.sub(lambda m: "" if _gives_access(m[1]) else m[0], path)
        query = query.partition("#")[0]
    elif not any(_gives_access(item.partition("=")[0]) for item in _items(query)):
        return uri  # a file name with a question mark
    shown_items = [shown for item in _items(query) if (shown := _shown(item))]
    return path + ("?" if shown_items else "") + "&".join(shown_items)


def without_queries(text: str) -> str:
    """Return a text in which no URI has a password, and no URL of a web server a query."""

    def clean(match: re.Match[str]) -> str:
        scheme, _, rest = match[0].partition("://")
        uri = without_credentials(f"{scheme.lower()}://{rest}")
        return split_query(uri)[0] if scheme.lower() in {"http", "https"} else uri

    return _URI.sub(clean, text)


def _items(query: str) -> list[str]:
    return [item for item in query.removeprefix("?").split("&") if item]


def _shown(item: str) -> str | None:
    """Return what is written of one query parameter, or None."""
    name, _, value = item.partition("=")
    plain = _plain(name)
    if "=" in plain:  # the sign itself was encoded
        return None if _gives_access(plain.partition("=")[0]) else _hashed(item)
    if plain.startswith(_SIGNED_PREFIXES) or plain in _SIGNED_NAMES:
        return None
    if _HASHED.fullmatch(value or name):
        return item
    if plain in _PUBLIC_NAMES:
        holds_more = re.search(r"[=;&?#@]|://", _plain(value).rstrip("="))
        return f"{name}={_hashed(value)}" if holds_more else item
    if _gives_access(name):
        return None
    named = value and _PLAIN_NAME.fullmatch(name)
    return f"{name}={_hashed(value)}" if named else _hashed(item)


def _gives_access(name: str) -> bool:
    plain = _plain(name)
    signs = plain.startswith(_SIGNED_PREFIXES) or plain in _SIGNED_NAMES
    return signs or (plain not in _PUBLIC_NAMES and bool(_SECRET.search(plain)))


def _plain(text: str) -> str:
    """Decode percent signs, also those that were encoded twice."""
    for _ in range(3):
        text = unquote_plus(text)
    return text.strip().lower()


def _hashed(value: str) -> str:
    return f"~{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def _without_password(scheme: str, rest: str) -> str:
    web = scheme in {"http", "https"}
    authority = re.split(r"[/?#]" if web else "/", rest, maxsplit=1)[0]
    user, at, host = authority.rpartition("@")
    head = f"{scheme}://"
    if not at:
        return head + rest
    # Elsewhere the name before the @ is part of the place (sftp's user, abfs's container).
    return head + ("" if web else f"{user.partition(':')[0]}@") + host + rest[len(authority) :]
