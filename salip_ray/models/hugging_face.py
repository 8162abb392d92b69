"""Load models and processors of ``transformers`` from a local folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from salip_ray.errors import ConfigError, MissingDependencyError, WeightsError
from salip_ray.wording import counted, one_line

if TYPE_CHECKING:
    from salip_ray.cascade.interfaces import ModelContext


def load_folder(
    context: ModelContext, field: str, what: str, example: str, load: Callable[[str], Any]
) -> Any:
    """Return what ``load`` makes of the folder ``weights.model``.

    Args:
        context: of the factory.
        field: the family in the configuration, such as ``propose.model sam2``.
        what: the folder must hold, for messages.
        example: a repository of such a model.
        load: called with the folder; imports ``transformers``.

    Raises:
        ConfigError: no folder is named.
        WeightsError: the folder holds no such model.
        MissingDependencyError: ``transformers`` is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingDependencyError("transformers", field, "transformers")
    role = field.partition(".")[0]
    if "model" not in context.weights:
        raise ConfigError(f"{role}.weights needs model: a folder of {what}, or {example}")
    folder = str(context.weights["model"])
    if not Path(folder).is_dir():
        raise WeightsError(
            f"{role}.weights.model {folder} is a file: give the folder of {what}, which holds "
            "config.json and model.safetensors"
        )
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # its reports are tables of all tensors
    try:
        return load(folder)
    except Exception as error:
        raise WeightsError(
            f"{role}.weights.model {folder} holds no {what}: {one_line(error, 300)}"
        ) from error
    finally:
        logging.set_verbosity(level)


def pretrained(architecture: Any, folder: str) -> Any:
    """Return a model of safetensors in a folder, in float32.

    Raises:
        ValueError: the weights are not all there; ``transformers`` would make up the others.
    """
    model, info = architecture.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if absent := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
        raise ValueError(
            f"its weights lack {absent[0]}, or have another shape of it "
            f"({counted(len(absent), 'tensor')} in all)"
        )
    return model


def frozen(model: Any, context: ModelContext) -> Any:
    """Return a model in eval mode, without gradients, on the device of the factory."""
    return model.eval().requires_grad_(False).to(context.device)
