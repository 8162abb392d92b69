"""Identify the weights of a job by their SHA-256, and pin a configuration to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from salip_ray.errors import WeightsError
from salip_ray.models.bundled import CLIP_WEIGHTS, SAM_WEIGHTS
from salip_ray.models.registry import family, needed
from salip_ray.models.weights import digest, digest_folder, fetch, fetch_folder, is_folder, verify

if TYPE_CHECKING:
    from salip_ray.config import ClipConfig, Config, SamConfig, WeightsFile


def identify(config: Config) -> dict[str, str]:
    """Return the sha256 of all weights that a job uses, by role.

    Fetch and verify the files, and check that those of SAM and CLIP fit their model, so that a
    wrong file is reported before any worker starts. Bundled weights must be whole files; workers
    load them. The roles are ``sam``, ``clip`` (if a mode needs it), ``refine`` (if the refiner is
    another SAM), and ``propose.NAME`` and the like for the ``weights`` of other families.

    Raises:
        WeightsError: a file is missing, altered, unsafe or of another model.
        ConfigError: a model or tag is unknown.
    """
    options = config.storage.weights
    digests: dict[str, str] = {}
    models = needed(config)
    if uses_sam(config):
        digests["sam"] = digest(_checked_sam(config.sam, options))
    if "retrieve" in models and models["retrieve"].name == "clip":
        digests["clip"] = digest(_checked_clip(config.clip, options))
    if config.refine.sam is not None:
        digests["refine"] = digest(_checked_sam(config.refine.sam, options))
    for role, model in models.items():
        if model.target:
            model.factory()  # report code that cannot be imported before any worker starts
            for name, file in getattr(config, role).weights.items():
                path = local_weights(file, options)
                folder = path.is_dir()
                digests[f"{role}.{name}"] = (
                    digest_folder(file.uri, path) if folder else digest(path)
                )
    return digests


def _checked_sam(config: SamConfig, storage_options: Mapping[str, Any]) -> Path:
    """Return the local file of a SAM's weights, after a check that it fits its model."""
    if config.model == "bundled":
        return _bundled(SAM_WEIGHTS, config.sha256, "the bundled SAM")
    from salip_ray.models.sam.load import check

    return check(config, storage_options=storage_options)


def _checked_clip(config: ClipConfig, storage_options: Mapping[str, Any]) -> Path:
    """Return the local file of a CLIP's weights, after a check that it fits its model."""
    if config.model == "bundled":
        return _bundled(CLIP_WEIGHTS, config.sha256, "the bundled CLIP")
    from salip_ray.models.clip.load import check

    return check(config, storage_options=storage_options)


def _bundled(path: Path, sha256: str | None, name: str) -> Path:
    """Return a file of the package, opened but not loaded: torch takes seconds to import."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{name} {path}: {error}: install the package again") from None
    verify(path, sha256, name)
    return path


def uses_sam(config: Config) -> bool:
    """Return True if the proposer is the SAM of ``config.sam``, or the refiner is."""
    models = needed(config)
    refiner = models.get("refine")
    refines = refiner is not None and refiner.name == "sam" and config.refine.sam is None
    return refines or ("propose" in models and models["propose"].name == "sam")


def local_weights(file: WeightsFile, storage_options: Mapping[str, Any] | None) -> Path:
    """Return the local path of a file or folder of weights, fetched if needed, and verified.

    Raises:
        WeightsError: it is missing, altered or cannot be fetched.
    """
    if is_folder(file.uri):
        return fetch_folder(file.uri, sha256=file.sha256)
    return fetch(file.uri, sha256=file.sha256, storage_options=storage_options)


def pin(config: Config, identity: Mapping[str, str]) -> Config:
    """Return the configuration with the digests of :func:`identify` filled in.

    A worker on another node fetches for itself; so it refuses any file but the driver's.
    """
    roles: dict[str, Any] = {
        role: getattr(config, role).model_copy(update={"sha256": identity[role]})
        for role in ("sam", "clip")
        if role in identity
    }
    for role in ("propose", "retrieve", "refine"):
        section = getattr(config, role)
        update: dict[str, Any] = {}
        if section.weights and family(config, role).target:
            update["weights"] = {
                name: file.model_copy(
                    update={"sha256": identity.get(f"{role}.{name}", file.sha256)}
                )
                for name, file in section.weights.items()
            }
        if role == "refine" and config.refine.sam is not None and "refine" in identity:
            update["sam"] = config.refine.sam.model_copy(update={"sha256": identity["refine"]})
        if update:
            roles[role] = section.model_copy(update=update)
    return config.model_copy(update=roles)
