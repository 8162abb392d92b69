"""Say in one line why a weights file cannot be loaded, and what to do about it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from salip_ray.errors import WeightsError
from salip_ray.wording import counted, one_line

_FETCH_AGAIN = "fetch the file again and compare its size and sha256 with the publisher's"
_CODE = re.compile(r"\b(?:GLOBAL|[Uu]nsupported class) ([A-Za-z_][\w.]*)")
_MISMATCH = re.compile(
    r"size mismatch for (\S+): copying a param with shape (\S+\(\[.*?\]\)) from checkpoint, "
    r"the shape in current model is (\S+\(\[.*?\]\))"
)
_KEYS = re.compile(r"(Missing|Unexpected) key\(s\) in state_dict: (.*?)\.(?:\s|$)")


def load_problem(path: Path, error: Exception, model: str) -> WeightsError:
    """Return the error for a file that ``model`` could not load because of ``error``.

    The file's content decides first: messages of torch about a truncated download or a web page
    name neither.
    """
    problem = _content_problem(path) or _code_problem(error) or state_problem(error)
    if problem is None and isinstance(error, OSError) and error.strerror:
        problem = error.strerror
    elif problem is None:
        problem = (
            "it is damaged, or neither a checkpoint of PyTorch nor safetensors. "
            f"Check that it is the right file, else {_FETCH_AGAIN}"
        )
    return WeightsError(f"{path} cannot be loaded as {model}: {problem}")


def state_problem(error: Exception) -> str | None:
    """Return what ``load_state_dict`` found different, in one line; None for another error."""
    text = one_line(error)
    sizes = _MISMATCH.findall(text)
    keys = {kind: re.findall(r'"([^"]+)"', names) for kind, names in _KEYS.findall(text)}
    missing, unexpected = keys.get("Missing", []), keys.get("Unexpected", [])
    if not (sizes or missing or unexpected):
        return None
    if sizes:
        name, stored, wanted = sizes[0]
        example = f"{name} is {_shape(stored)} in the file, {_shape(wanted)} in the model"
    elif missing:
        example = f"the file has no {missing[0]}"
    else:
        example = f"the model has no {unexpected[0]}"
    different = counted(len(sizes) + len(missing) + len(unexpected), "tensor")
    return (
        f"it holds the weights of another model: {example} ({different} in all). "
        "Name the model that the file was made for, or another file"
    )


def _shape(text: str) -> str:
    return "(" + text.partition("[")[2].partition("]")[0] + ")"


def _content_problem(path: Path) -> str | None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512).lstrip()
    except OSError:
        return None
    if size == 0:
        return f"the file is empty; {_FETCH_AGAIN}"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the weights: run `git lfs pull` where it came from"
    if head.startswith((b"<!", b"<html", b"<HTML", b"<?xml", b"<Error")):
        return f"it is a web page or an error message, not the weights; {_FETCH_AGAIN}"
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"it ends early, after {size:,} bytes; {_FETCH_AGAIN}"
    return None


def _code_problem(error: Exception) -> str | None:
    named = _CODE.search(one_line(error))
    if named is None:
        return None
    return (
        f"it holds Python objects next to tensors ({named[1]}), and loading those can run code, so "
        "it is refused. If you trust its source, load it with torch and save its state dict: "
        "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
    )
