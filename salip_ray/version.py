"""The version of this package; pyproject.toml and CITATION.cff repeat it."""

from __future__ import annotations

VERSION = "0.2.0"
