"""SAM 3 as a proposer of labelled instances, through ``transformers``: Sam3Model.

It segments every instance of a short phrase, so that no retriever runs. The folder
``weights.model`` is a local copy of ``facebook/sam3``, whose weights are gated.

Options:
    phrases: ``{class: phrase}``; by default the phrase of a class is its name.
    threshold: instances with a lower score are dropped (0.3).
    mask_threshold: probability above which a pixel belongs to an instance (0.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from salip_ray.cascade.interfaces import Instances, ModelContext
from salip_ray.errors import ConfigError
from salip_ray.models.hugging_face import frozen, load_folder, pretrained
from salip_ray.schema import Image
from salip_ray.wording import counted

_FAMILY = "propose.model sam3"
_OPTIONS = ("phrases", "threshold", "mask_threshold")


class Sam3Proposer:
    """Propose the instances of each class by a phrase.

    Args:
        context: of the factory.

    Raises:
        ConfigError: no folder is named, or an option is unknown or unusable.
        WeightsError: the folder holds no such model.
        MissingDependencyError: ``transformers`` is not installed.
    """

    labels_candidates = True

    def __init__(self, context: ModelContext) -> None:
        phrases = _phrases(context.options, [spec.label for spec in context.task.classes])
        self.threshold = _share(context.options, "threshold", 0.3)
        self.mask_threshold = _share(context.options, "mask_threshold", 0.5)
        model, self.processor = load_folder(
            context, _FAMILY, "SAM 3 of Hugging Face", "hf-hub:facebook/sam3", _load
        )
        self.model, self.device = frozen(model, context), context.device
        self.dtype = torch.bfloat16 if context.precision == "fast" else torch.float32
        self.model.vision_encoder.to(self.dtype)
        self.texts = {label: self._encode_text(label, words) for label, words in phrases.items()}

    @torch.inference_mode()
    def __call__(self, working: Image) -> Instances:
        """Return the instances of all classes in a working image, uint8 RGB [H, W, 3]."""
        pixels = self.processor(images=working, return_tensors="pt")["pixel_values"]
        views = self.model.get_vision_features(pixels.to(self.device, self.dtype))
        views.fpn_hidden_states = tuple(v.float() for v in views.fpn_hidden_states)
        views.fpn_position_encoding = tuple(v.float() for v in views.fpn_position_encoding)
        labels: list[str] = []
        scores = [torch.zeros(0, device=self.device)]
        masks = [torch.zeros(0, *working.shape[:2], dtype=torch.bool, device=self.device)]
        # Class by class: the masks of all queries of all classes might not fit into memory.
        for label, (features, mask) in self.texts.items():
            answer = self.model(vision_embeds=views, text_embeds=features, attention_mask=mask)
            (instances,) = self.processor.post_process_instance_segmentation(
                answer, self.threshold, self.mask_threshold, [working.shape[:2]]
            )
            if len(instances["scores"]):  # else the masks are not resized
                labels += [label] * len(instances["scores"])
                scores.append(instances["scores"])
                masks.append(instances["masks"].bool())
        return Instances(torch.cat(scores), torch.cat(masks), labels=labels)

    @torch.inference_mode()
    def _encode_text(self, label: str, phrase: str) -> tuple[Any, Tensor]:
        """Return the features of a phrase, and which of its tokens count."""
        tokens = self.processor(text=phrase, return_tensors="pt").to(self.device)
        limit = self.model.config.text_config.max_position_embeddings
        if (count := tokens["input_ids"].shape[1]) > limit:
            raise ConfigError(
                f"propose.options.phrases of {label}: {phrase!r} has {counted(count, 'token')}, "
                f"SAM 3 reads {limit}: give a short noun phrase"
            )
        mask = tokens["attention_mask"]
        return self.model.get_text_features(tokens["input_ids"], mask, return_dict=True), mask


def _load(folder: str) -> tuple[Any, Any]:
    from transformers import Sam3Model, Sam3Processor

    model = pretrained(Sam3Model, folder)
    return model, Sam3Processor.from_pretrained(folder, local_files_only=True)


def _phrases(options: Mapping[str, Any], classes: Sequence[str]) -> dict[str, str]:
    """Return the phrase of each class."""
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise ConfigError(
            f"propose.options has {', '.join(unknown)}: SAM 3 has {', '.join(_OPTIONS)}"
        )
    given = options.get("phrases", {})
    if not isinstance(given, Mapping) or not all(isinstance(v, str) for v in given.values()):
        raise ConfigError("propose.options.phrases must map classes to phrases")
    if strangers := sorted(given.keys() - set(classes)):
        raise ConfigError(
            f"propose.options.phrases names {', '.join(strangers)}: the task has the classes "
            f"{', '.join(classes)}"
        )
    return {label: given.get(label, label.replace("_", " ")) for label in classes}


def _share(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"propose.options.{name} is {value!r}: it must be from 0 to below 1")
    return float(value)
