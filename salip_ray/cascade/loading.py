"""Load the proposer, retriever and refiner that a configuration names.

The job, :class:`salip_ray.Cascade`, the search and the benchmarks build their models here, so that
family, device, precision and storage options are resolved in one way. Import this module only when
models are to be loaded: it imports open_clip and the storage clients.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam

from salip_ray.cascade.given import NoProposer
from salip_ray.cascade.interfaces import ModelContext, Proposer, Refiner, Retriever
from salip_ray.cascade.own_models import ProposerOf, RefinerOf, RetrieverOf
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.config import Config, SamConfig
from salip_ray.errors import ConfigError, ModelError, SalipError
from salip_ray.models.clip.hugging_face import load_hugging_face_clip
from salip_ray.models.clip.load import load_clip
from salip_ray.models.devices import resolve_device, resolve_precision
from salip_ray.models.identity import local_weights
from salip_ray.models.registry import NONE, PROMPTS, Family, family, shares_embedding, weights_of
from salip_ray.models.sam.load import load_sam
from salip_ray.wording import one_line

Device = str | torch.device | None  #: None: what ``run.device`` names


def load_proposer(config: Config, device: Device = None) -> Proposer:
    """Load the proposer of steps 1 and 2.

    Raises:
        ConfigError: the family or device does not exist, or the settings do not fit together.
        WeightsError: weights are missing, altered or of another model.
        ModelError: the model of another package cannot be built.
    """
    model = family(config, "propose")
    if model.name == PROMPTS:
        raise ConfigError(
            f"{model.shown} has no model: it takes the boxes of label --prompts. Choose another "
            "proposer for a single image"
        )
    if model.name == NONE:
        return NoProposer()
    if not model.target:
        return load_sam_proposer(config, device)
    built = _build(model, config, device)
    if isinstance(built, SamProposer):
        return built
    return ProposerOf(built, config, name=model.shown, labels=model.labels_candidates)


def load_retriever(config: Config, device: Device = None) -> Retriever:
    """Load the retriever of steps 3 and 4.

    Raises:
        ConfigError: the family, device, model or tag does not exist.
        WeightsError: weights are missing, altered or of another model.
        MissingDependencyError: the text tower needs ``transformers``.
        ModelError: the model of another package cannot be built.
    """
    model = family(config, "retrieve")
    if not model.target:
        return load_clip_retriever(config, device)
    built = _build(model, config, device)
    if isinstance(built, ClipRetriever):
        return built
    return RetrieverOf(built, config, name=model.shown)


def load_refiner(
    config: Config, device: Device = None, *, decoder_only: bool | None = None
) -> Refiner:
    """Load the refiner of step 5.

    Args:
        config: the job's configuration.
        device: where to load the model.
        decoder_only: load a SAM without its image encoder. By default its encoder is loaded only if
            the refiner cannot use the proposer's embedding.

    Raises:
        ConfigError: the family or device does not exist.
        WeightsError: weights are missing, altered or of another model.
        ModelError: the model of another package cannot be built.
    """
    model = family(config, "refine")
    if not model.target:
        return load_sam_refiner(config, device, decoder_only=decoder_only)
    built = _build(model, config, device)
    if model.embedding is not None and not (shares_embedding(config) or hasattr(built, "encode")):
        raise ModelError(
            f"{model.shown} takes the embedding {model.embedding!r} of a proposer, but "
            f"propose.model {config.propose.model} makes none: use a proposer of its family"
        )
    return RefinerOf(built, config, name=model.shown)


def load_sam_proposer(config: Config, device: Device = None) -> SamProposer:
    """Load the SAM of ``config.sam`` as proposer."""
    return SamProposer(_load_sam(config, config.sam, device), config)


def load_clip_retriever(config: Config, device: Device = None) -> ClipRetriever:
    """Load the CLIP of ``config.clip`` as retriever."""
    resolved = _resolve(config, device)
    clip = load_clip(
        config.clip,
        device=resolved,
        storage_options=config.storage.weights,
        precision=resolve_precision(config.run.precision, resolved),
        resize=config.retrieve.resize,
    )
    return ClipRetriever(clip, config)


def load_sam_refiner(
    config: Config, device: Device = None, *, decoder_only: bool | None = None
) -> SamRefiner:
    """Load the SAM of ``config.refine.sam`` (None: ``config.sam``) as refiner."""
    if decoder_only is None:
        decoder_only = shares_embedding(config)
    sam = _load_sam(config, config.refine.sam or config.sam, device, decoder_only=decoder_only)
    return SamRefiner(sam, config)


def hugging_face_retriever(context: ModelContext) -> ClipRetriever:
    """Build the retriever ``hf-clip``: a CLIP or SigLIP of the folder ``weights.model``."""
    return ClipRetriever(load_hugging_face_clip(context), context.config)


def _build(model: Family, config: Config, device: Device) -> Any:
    """Call the factory of a family.

    Raises:
        ModelError: the factory raises.
    """
    section = getattr(config, model.role)
    resolved = _resolve(config, device)
    files, options = weights_of(config, model.role), config.storage.weights
    context = ModelContext(
        options=section.options,
        weights={name: local_weights(file, options) for name, file in files.items()},
        task=config.task,
        device=resolved,
        precision=resolve_precision(config.run.precision, resolved),
        config=config,
    )
    factory = model.factory()
    try:
        return factory(context)
    except SalipError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error, 300)}"
        raise ModelError(f"{model.shown} cannot be built: {reason}") from error


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
