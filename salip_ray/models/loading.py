"""Load the proposer, retriever and refiner that a configuration names.

The job, :class:`salip_ray.Cascade`, the search and the benchmarks build their models here, so that
device, precision and storage options are resolved in one way. Import this module only when models
are to be loaded: it imports open_clip and the storage clients.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam

from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.config import Config, SamConfig
from salip_ray.models.clip.load import load_clip
from salip_ray.models.devices import resolve_device, resolve_precision
from salip_ray.models.sam.load import load_sam

Device = str | torch.device | None  #: None: what ``run.device`` names


def load_proposer(config: Config, device: Device = None) -> SamProposer:
    """Load the SAM of ``config.sam``, as the proposer of steps 1 and 2.

    Raises:
        ConfigError: the device does not exist, or the settings of ``propose`` do not fit together.
        WeightsError: the checkpoint is missing, altered or of another model.
    """
    return SamProposer(_load_sam(config, config.sam, device), config)


def load_retriever(config: Config, device: Device = None) -> ClipRetriever:
    """Load the CLIP of ``config.clip``, as the retriever of step 4.

    Raises:
        ConfigError: the device, model or tag does not exist.
        WeightsError: the weights are missing, altered or of another model.
        MissingDependencyError: the text tower needs ``transformers``.
    """
    resolved = _resolve(config, device)
    clip = load_clip(
        config.clip,
        device=resolved,
        storage_options=config.storage.weights,
        precision=resolve_precision(config.run.precision, resolved),
        resize=config.retrieve.resize,
    )
    return ClipRetriever(clip, config)


def load_refiner(
    config: Config, device: Device = None, *, decoder_only: bool | None = None
) -> SamRefiner:
    """Load the SAM of ``config.refine.sam`` (None: ``config.sam``), as the refiner of step 5.

    Args:
        config: the job's configuration.
        device: where to load the model.
        decoder_only: load no image encoder. By default it is loaded only if the refiner has its own
            weights: else the proposer's embedding is used.

    Raises:
        ConfigError: the device does not exist.
        WeightsError: the checkpoint is missing, altered or of another model.
    """
    if decoder_only is None:
        decoder_only = config.refine.sam is None
    sam = _load_sam(config, config.refine.sam or config.sam, device, decoder_only=decoder_only)
    return SamRefiner(sam, config)


def _load_sam(
    config: Config, model: SamConfig, device: Device, *, decoder_only: bool = False
) -> Sam:
    resolved = _resolve(config, device)
    return load_sam(
        model,
        device=resolved,
        storage_options=config.storage.weights,
        decoder_only=decoder_only,
        precision=resolve_precision(config.run.precision, resolved),
    )


def _resolve(config: Config, device: Device) -> torch.device:
    return resolve_device(config.run.device if device is None else device)
