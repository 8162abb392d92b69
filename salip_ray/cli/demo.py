"""``salip-ray demo``."""

from __future__ import annotations


def demo() -> None:
    """Label phantoms."""
