"""Check that the weights of a CLIP are on this machine or can be fetched."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

from salip_ray.config import ClipConfig

_TIMEOUT_SECONDS = 10.0
#: Names of weight files that open_clip looks for in a repository of the Hugging Face hub.
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def names_a_file(config: ClipConfig) -> bool:
    """Return True if ``clip.pretrained`` is a path or URI, and not a tag of open_clip."""
    name = config.pretrained or ""
    return "/" in name or bool(Path(name).suffix) or Path(name).is_file()


def state_of_named_weights(config: ClipConfig) -> tuple[bool, str]:
    """Return whether weights that open_clip or the hub names are available, and a description.

    The weights are available if they are cached here or one of their addresses answers. Nothing is
    fetched.
    """
    model, tag = config.model, config.pretrained
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:")).expanduser()
        return folder.is_dir(), f"{folder}{'' if folder.is_dir() else ' does not exist'}"
    if model.startswith("hf-hub:"):
        sources = {"hf_hub": model.removeprefix("hf-hub:")}
        name = model
    elif tag is None:
        return False, f"clip.pretrained is missing: {model} needs a tag, path or URI of weights"
    else:
        import open_clip

        name = f"{tag} of {model}"
        sources = open_clip.get_pretrained_cfg(model, tag)
        if not sources:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
            return False, f"open_clip has no weights {name}; tags of {model}: {tags}"
    if cached := _cached(sources):
        return True, f"{name}, fetched already: {cached}"
    for url in _urls(sources):
        if (size := _size(url)) is not None:
            return True, f"{name}, {size / 1e6:,.0f} MB to fetch, once per node"
    hosts = " or ".join(dict.fromkeys(url.split("/")[2] for url in _urls(sources)))
    return False, (
        f"{name} is not on this machine, and {hosts} does not answer: fetch it on a machine with "
        "network access and set HF_HOME to that cache, or give a file as clip.pretrained"
    )


def _repository(sources: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the hub repository of the weights ("" if none), and the file names to look for."""
    owner, _, rest = sources.get("hf_hub", "").partition("/")
    repository, _, file = rest.partition("/")
    return (f"{owner}/{repository}" if repository else ""), ((file,) if file else _HUB_FILES)


def _cached(sources: dict[str, str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, files = _repository(sources)
    for file in files if repository else ():
        if isinstance(path := try_to_load_from_cache(repository, file), str):
            return Path(path)
    # open_clip's own folder, for weights that it fetches by their address.
    path = Path("~/.cache/clip").expanduser() / sources.get("url", "").rpartition("/")[2]
    return path if path.is_file() else None


def _urls(sources: dict[str, str]) -> Iterator[str]:
    from huggingface_hub import hf_hub_url

    repository, files = _repository(sources)
    if repository:
        yield from (hf_hub_url(repository, file) for file in files)
    if sources.get("url"):
        yield sources["url"]


def _size(url: str) -> int | None:
    """Return the size in bytes that a server reports for an address, or None if it has none."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  (addresses of open_clip)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return int(answer.headers.get("Content-Length") or 0)
    except OSError:
        return None
