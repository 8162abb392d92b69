"""Turn notebooks into pages of the documentation site."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any


def write_page(notebook: Path, page: Path) -> str:
    """Write a notebook and its pictures next to ``page``; return the page's Markdown text."""
    page.parent.mkdir(parents=True, exist_ok=True)
    (page.parent / notebook.name).write_bytes(notebook.read_bytes())
    parts: list[str] = []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for order, output in enumerate(cell["outputs"]):
            picture = page.parent / f"{notebook.stem}-{number}-{order}.png"
            parts.append(_shown(output, picture))
    title, _, rest = "\n\n".join(parts).partition("\n")
    note = (
        f'This page is a notebook: <a href="{notebook.name}" download>download it</a> and run it.'
    )
    return f"{title}\n\n{note}\n{rest}\n"


def _shown(output: dict[str, Any], picture: Path) -> str:
    """Return an output of a cell as Markdown; a picture is written to ``picture``."""
    data = output.get("data", {})
    if "image/png" in data:
        picture.write_bytes(base64.b64decode(data["image/png"]))
        return f"![Output of the cell]({picture.name})"
    text = "".join(output.get("text") or data.get("text/plain", "")).rstrip()
    return f"```text\n{text}\n```"
