"""Recognise DICOM by its first bytes, without pydicom."""

from __future__ import annotations

PREAMBLE, MARK = 128, b"DICM"
LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)


def is_dicom(head: bytes) -> bool:
    """Return True if a file begins as DICOM does: with its mark, or with group 0002 or 0008."""
    if head[PREAMBLE : PREAMBLE + len(MARK)] == MARK:
        return True
    if head[:2] not in {b"\x02\x00", b"\x08\x00"} or len(head) < 12:
        return False
    element, vr = int.from_bytes(head[2:4], "little"), head[4:6]
    if element > 0x18:
        return False
    if vr in SHORT_VRS | LONG_VRS:
        return True
    length = int.from_bytes(head[4:8], "little")
    return length < 256 and head[8 + length : 10 + length] == head[:2]
