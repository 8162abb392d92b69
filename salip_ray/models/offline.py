"""Copy the weights that a preset names into a folder, for a machine without network access."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from salip_ray.config import Config
from salip_ray.config.assignments import merge
from salip_ray.models.clip.find import find_weights, parse_name, weights_in_folder
from salip_ray.models.identity import local_weights, uses_sam
from salip_ray.models.registry import needed
from salip_ray.models.sam.load import checkpoint
from salip_ray.models.weights import digest, digest_folder, is_folder

_CLIP_CONFIG = "open_clip_config.json"
#: What a text tower needs of its repository: sizes and tokenizer; its weights are the CLIP's.
_TEXT_FILES = ("config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json")


def copy_weights(
    config: Config, folder: Path, shown_as: str, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Copy all weights of a configuration into a folder.

    Files that are there already are replaced. The sizes and the tokenizer of the text tower that a
    CLIP of the Hugging Face hub names are copied, too.

    Args:
        config: names the weights; models of the package have none.
        folder: a local folder.
        shown_as: path of the folder where the weights will be used.
        report: called with a line for each file or folder.

    Returns:
        The settings that name the copies, with their SHA-256: sections of a configuration.

    Raises:
        WeightsError: weights cannot be fetched, or are altered.
        ConfigError: a model is unknown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copies = _Copies(folder, shown_as, report)
    models, options = needed(config), config.storage.weights
    changes: dict[str, Any] = {}
    if uses_sam(config):
        changes["sam"] = copies.sam(config.sam, options)
    if config.refine.sam is not None:
        changes["refine"] = {"sam": copies.sam(config.refine.sam, options)}
    if "retrieve" in models and models["retrieve"].name == "clip":
        changes["clip"] = copies.clip(config.clip, options)
    for role in models:
        weights = {
            name: copies.copied(local_weights(file, options), file.uri)
            for name, file in getattr(config, role).weights.items()
        }
        if weights:
            changes = merge(changes, {role: {"weights": weights}})
    return {section: values for section, values in changes.items() if values}


class _Copies:
    def __init__(self, folder: Path, shown_as: str, report: Callable[[str], None]) -> None:
        self.folder, self.shown_as, self.report = folder, shown_as.rstrip("/"), report

    def sam(self, sam: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
        if sam.model == "bundled":
            return {}
        path = checkpoint(sam, options)
        copy = self.copied(path.parent if is_folder(sam.checkpoint) else path, sam.checkpoint)
        # The digest of a folder's checkpoint is that of the file in it.
        return {"checkpoint": copy["uri"], "sha256": digest(path)}

    def clip(self, clip: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
        if clip.model == "bundled":
            return {}
        path = find_weights(clip, options)
        schema, name = parse_name(clip.model)
        if schema is None:
            copy = self.copied(path, f"{clip.model}{path.suffix}")
            return {"pretrained": copy["uri"], "sha256": copy["sha256"]}
        source = self._clip_folder(name) if schema == "hf-hub" else path.parent
        copy = self.copied(source, f"hf-hub:{name}" if schema == "hf-hub" else str(source))
        target = self.folder / Path(copy["uri"]).name
        self._take_text_tower(target, copy["uri"])
        copied = weights_in_folder(target)
        assert copied is not None, "it has just been copied"
        return {"model": f"local-dir:{copy['uri']}", "sha256": digest(copied)}

    def copied(self, path: Path, uri: str) -> dict[str, str]:
        """Copy a file or folder; return its later path, and its digest."""
        name = uri.rstrip("/").rpartition("/")[2]
        if uri.startswith("hf-hub:"):
            name = uri.removeprefix("hf-hub:").replace("/", "--")
        target = self.folder / name
        if path.is_dir():
            # The files of Hugging Face's cache are links.
            shutil.copytree(path, target, symlinks=False, dirs_exist_ok=True)
            sha256 = digest_folder(str(target), target)
        else:
            shutil.copyfile(path, target)
            sha256 = digest(target)
        self.report(f"{uri} -> {target}")
        return {"uri": f"{self.shown_as}/{name}", "sha256": sha256}

    @staticmethod
    def _clip_folder(name: str) -> Path:
        """Return the cached folder of a CLIP of the hub, with its tokenizer."""
        from huggingface_hub import snapshot_download

        wanted = [_CLIP_CONFIG, "open_clip_*model.*", *_TEXT_FILES]
        return Path(snapshot_download(name, allow_patterns=wanted))

    def _take_text_tower(self, folder: Path, shown: str) -> None:
        """Copy the text tower that a CLIP names into its folder, and name the copy instead.

        open_clip looks for the tokenizer next to the weights, whatever the configuration names.
        """
        from huggingface_hub import snapshot_download

        file = folder / _CLIP_CONFIG
        data = json.loads(file.read_text())
        text = data["model_cfg"]["text_cfg"]
        own_tokenizer = any(folder.glob("tokenizer*")) or any(folder.glob("vocab*"))
        for key, target in (("hf_model_name", folder / "text"), ("hf_tokenizer_name", folder)):
            if key not in text or Path(text[key]).is_dir():
                continue
            if target != folder or not own_tokenizer:
                source = Path(snapshot_download(text[key], allow_patterns=list(_TEXT_FILES)))
                target.mkdir(exist_ok=True)
                for pattern in _TEXT_FILES:
                    for path in source.glob(pattern):
                        if not (target / path.name).exists():
                            shutil.copyfile(path, target / path.name)
                self.report(f"{text[key]} -> {target}")
            text[key] = f"{shown}/text" if target != folder else shown
        file.write_text(json.dumps(data, indent=2))
