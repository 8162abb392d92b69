"""Run the notebooks of ``docs/notebooks``: ``make notebooks``.

Usage:
    python tools/notebooks.py [--check] [NOTEBOOK ...]

Each runs from its first cell in a new process and an empty folder, and is written back with its
outputs: text and small pictures, without messages on stderr, times and paths. ``--check`` writes
nothing; it exits with 1 if a cell fails, or prints other text than the one stored. Numbers may
differ, because they depend on the processor.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
_SECONDS = 600  # of one cell
_COLOURS = 128  # of a picture: overlays on grey images look the same


def run(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a new run.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=_SECONDS,
            startup_timeout=_SECONDS,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [tidy(o) for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def tidy(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an output without metadata, its picture as a small PNG."""
    if (picture := output.get("data", {}).get("image/png")) is not None:
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        buffer = io.BytesIO()
        image.quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        output.data = {"image/png": base64.b64encode(buffer.getvalue()).decode("ascii")}
    if "metadata" in output:
        output.metadata = {}
    return output


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what each code cell printed, with every number as ``0``; a picture is its type."""
    printed = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # How a kernel cuts the text of a slow cell into outputs is chance.
            parts = [o.get("text") or f"{shown(o)}\n" for o in cell.outputs]
            printed.append(re.sub(r"\d+(\.\d+)?", "0", "".join(parts)))
    return printed


def shown(output: nbformat.NotebookNode) -> str:
    """Return the text of a displayed value, or the type of a picture."""
    data = output.get("data", {})
    return "image/png" if "image/png" in data else data.get("text/plain", "")


def differences(path: Path) -> list[str]:
    """Return why a notebook is not what a new run gives, a line per cell."""
    stored = texts(nbformat.read(path, as_version=4))
    try:
        new = texts(run(path))
    except CellExecutionError as error:
        return [f"{path.name}: {error}"]
    return [
        f"{path.name}: code cell {number} printed {now!r}, stored is {before!r}"
        for number, (before, now) in enumerate(zip(stored, new, strict=True), start=1)
        if before != now
    ]


def main() -> None:
    """Run the notebooks, and write or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("notebooks", type=Path, nargs="*", metavar="NOTEBOOK")
    parser.add_argument("--check", action="store_true", help="Compare, and write nothing.")
    arguments = parser.parse_args()
    problems = []
    for path in arguments.notebooks or sorted(FOLDER.glob("*.ipynb")):
        if arguments.check:
            problems += differences(path)
        else:
            nbformat.write(run(path), path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
