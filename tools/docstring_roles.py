"""Show Sphinx roles in docstrings as plain code; an extension of griffe for the site."""

from __future__ import annotations

import re
from typing import Any

import griffe


def without_roles(text: str) -> str:
    """Return a text with ``b`` in place of each role such as ``:func:`a.b```."""
    return re.sub(r":\w+:`~?([^`<]*)`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)


class DocstringRoles(griffe.Extension):
    """Replace the roles in every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a loaded object in place."""
        if obj.docstring:
            obj.docstring.value = without_roles(obj.docstring.value)
