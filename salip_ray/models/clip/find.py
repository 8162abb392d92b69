"""Find the weights of a CLIP: bundled, open_clip's, on the Hub, in a folder or at a URI."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from filelock import FileLock
from open_clip.pretrained import download_pretrained_from_hf

from salip_ray.config import ClipConfig
from salip_ray.errors import ConfigError, SalipError, WeightsError
from salip_ray.models.bundled import clip_net
from salip_ray.models.weights import cache_dir, fetch, verify
from salip_ray.wording import one_line

_SUFFIXES = (".safetensors", ".bin", ".pth")
_SCHEMAS = ("hf-hub", "local-dir")
#: open_clip's order of preference among the files of a folder; then any safetensors, then by name.
_PREFERRED_FILES = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)


def parse_name(model: str) -> tuple[str | None, str]:
    """Return schema (``hf-hub``, ``local-dir`` or None) and identifier of ``clip.model``.

    Raises:
        ConfigError: the identifier is empty.
    """
    schema, separator, identifier = model.partition(":")
    if not separator or schema not in _SCHEMAS:
        return None, model
    if not identifier:
        raise ConfigError(f"clip.model {model!r} names nothing after {schema}:")
    return schema, identifier


def find_weights(config: ClipConfig, storage_options: Mapping[str, Any] | None) -> Path:
    """Return the local weights file, verified against ``config.sha256``; download it if needed.

    Raises:
        ConfigError: a model or tag is unknown, or weights are not named.
        WeightsError: weights are missing, altered or cannot be downloaded.
    """
    if config.model == "bundled":
        _refuse_pretrained(config)
        path = clip_net.WEIGHTS
    else:
        try:
            path = _find(config, storage_options)
        except SalipError:
            raise
        except Exception as error:  # open_clip and the Hub raise many types
            reason = one_line(error)
            raise WeightsError(f"weights of {_name(config)} cannot be found: {reason}") from error
    verify(path, config.sha256, f"weights of {_name(config)}")
    return path


def _find(config: ClipConfig, storage_options: Mapping[str, Any] | None) -> Path:
    schema, identifier = parse_name(config.model)
    if schema == "hf-hub":
        _refuse_pretrained(config)
        return Path(download_pretrained_from_hf(identifier))
    if schema == "local-dir":
        _refuse_pretrained(config)
        return _in_folder(Path(identifier))
    if open_clip.get_model_config(config.model) is None:
        known = open_clip.list_models()
        near = difflib.get_close_matches(config.model, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see open_clip.list_models()"
        raise ConfigError(f"clip.model {config.model!r} is not known to open_clip; {hint}")
    if config.pretrained is None:
        raise ConfigError(
            f"clip.pretrained is missing: {config.model} needs a tag "
            f"({_tags(config.model)}), or the path or URI of a checkpoint"
        )
    tag = open_clip.get_pretrained_cfg(config.model, config.pretrained)
    if not tag:
        if "/" not in config.pretrained and not Path(config.pretrained).is_file():
            raise ConfigError(
                f"clip.pretrained {config.pretrained!r} is neither a file nor a tag of "
                f"{config.model} ({_tags(config.model)})"
            )
        return fetch(config.pretrained, sha256=config.sha256, storage_options=storage_options)
    if tag.get("quick_gelu", False) != uses_quick_gelu(config.model):
        raise activation_error(config)
    # open_clip writes its downloads in place: one process at a time.
    lock = cache_dir() / f"open_clip-{config.model}-{config.pretrained}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        return Path(open_clip.download_pretrained(tag))


def uses_quick_gelu(model: str) -> bool:
    """Return True if open_clip gives the model OpenAI's activation."""
    return bool(open_clip.get_model_config(model).get("quick_gelu", False))


def activation_error(config: ClipConfig) -> ConfigError:
    """Return the error for weights of another activation; open_clip only warns."""
    return ConfigError(
        f"clip.model {config.model} and the weights {config.pretrained!r} differ in their "
        f"activation: use {config.model}-quickgelu"
    )


def weights_in_folder(folder: Path) -> Path | None:
    """Return the file that open_clip loads from a ``local-dir:`` folder; None without weights."""
    files = [
        file for suffix in ("safetensors", "bin", "pth") for file in folder.glob(f"*.{suffix}")
    ]
    last = len(_PREFERRED_FILES)

    def preference(file: Path) -> tuple[int, bool, Path]:
        known = file.name in _PREFERRED_FILES
        rank = _PREFERRED_FILES.index(file.name) if known else last
        return rank, file.suffix != ".safetensors", file

    return min(files, key=preference, default=None)


def _in_folder(folder: Path) -> Path:
    if not (folder / "open_clip_config.json").is_file():
        raise WeightsError(
            f"clip.model local-dir:{folder}: the folder has no open_clip_config.json"
        )
    weights = weights_in_folder(folder)
    if weights is None:
        raise WeightsError(f"clip.model local-dir:{folder}: the folder has no weights file")
    return weights


def _refuse_pretrained(config: ClipConfig) -> None:
    if config.pretrained is not None:
        raise ConfigError(
            f"clip.pretrained {config.pretrained!r} would be ignored: {config.model} has its "
            "own weights; remove clip.pretrained"
        )


def _tags(model: str) -> str:
    return ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "it has no tags"


def _name(config: ClipConfig) -> str:
    return f"{config.model} {config.pretrained or ''}".rstrip()
