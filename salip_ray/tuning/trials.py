"""Score one recipe on cached images: what the cascade would label, and its Dice."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.compose import compose
from salip_ray.cascade.ranking import Ranker
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.config import Config
from salip_ray.evaluation.overlap import dice
from salip_ray.models.clip.load import ClipModel
from salip_ray.schema import ClassMask, Image, Mask
from salip_ray.tuning.cache import CachedImage


@dataclass(frozen=True)
class CachedTexts:
    """CLIP's features of a task's sentences: all that a trial needs of CLIP.

    Implements :class:`salip_ray.cascade.ranking.TextEncoder` without the text tower.

    Attributes:
        features: feature of each sentence as the text tower returns it, float32 [d].
        logit_scale: CLIP's own.
    """

    features: Mapping[str, Tensor]
    logit_scale: float

    @classmethod
    def of(cls, clip: ClipModel, config: Config) -> CachedTexts:
        """Encode the sentences of a task's classes and distractors."""
        specs = (*config.task.classes, *config.task.competitors)
        sentences = list(dict.fromkeys(text for spec in specs for text in spec.sentences))
        features = clip.encode_texts(sentences, normalize=False).cpu()
        return cls(dict(zip(sentences, features, strict=True)), clip.logit_scale)

    def to_bytes(self) -> bytes:
        """Return the content of one file."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            sentences=np.array(list(self.features)),
            features=torch.stack(list(self.features.values())).numpy(),
            logit_scale=np.array(self.logit_scale),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> CachedTexts:
        """Read the file made by :meth:`to_bytes`."""
        with np.load(io.BytesIO(data)) as arrays:
            features = torch.from_numpy(arrays["features"])
            sentences = [str(text) for text in arrays["sentences"]]
            return cls(dict(zip(sentences, features, strict=True)), float(arrays["logit_scale"]))

    def encode_texts(self, sentences: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Return one feature per sentence, float32 [n, d], of unit length if ``normalize``.

        Raises:
            KeyError: a sentence is not cached.
        """
        features = torch.stack([self.features[sentence] for sentence in sentences])
        return torch.nn.functional.normalize(features, dim=-1) if normalize else features


class Trial:
    """A recipe that can be scored on cached images.

    Args:
        config: the recipe.
        sam: the refiner's SAM; its image encoder is not used.
        texts: of the task.
    """

    def __init__(self, config: Config, sam: Sam, texts: CachedTexts) -> None:
        self.config = _cascade_only(config)
        self.ranker = Ranker(texts, config)
        self.refiner = SamRefiner(sam, config)

    @torch.no_grad()
    def dice(self, image: CachedImage) -> dict[str, float]:
        """Return the Dice of each class; NaN if neither label nor reference has the class."""
        candidates, n_proposed = image.candidates(self.config)
        selections = (
            self.ranker.select(image.image_features(self.config.retrieve, candidates), candidates)
            if candidates
            else ()
        )
        result = compose(
            self.config,
            self.refiner,
            candidates=candidates,
            n_proposed=n_proposed,
            embedding=image.embedding,
            selections=selections,
            working_size=image.working_size,
            original_size=image.original_size,
        )
        return _dice_of(result.masks, image.references)


class WholeTrial:
    """A recipe that runs whole on each image, for models whose encoders cannot be cached.

    Args:
        config: the recipe.
    """

    def __init__(self, config: Config) -> None:
        self.cascade = Cascade(_cascade_only(config))

    @torch.no_grad()
    def dice(self, image: Image, references: Mapping[str, Mask]) -> dict[str, float]:
        """Return the Dice of each class; NaN if neither label nor reference has the class."""
        return _dice_of(self.cascade(image).masks, references)


def _cascade_only(config: Config) -> Config:
    run = config.run.model_copy(update={"modes": ("cascade",)})
    return config.model_copy(update={"run": run})


def _dice_of(labels: Sequence[ClassMask], references: Mapping[str, Mask]) -> dict[str, float]:
    masks = {label.label: label.mask for label in labels}
    return {
        label: dice(masks.get(label, np.zeros_like(reference)), reference)
        for label, reference in references.items()
    }


def mean_dice(images: Sequence[Mapping[str, float]]) -> float:
    """Return the mean over images and classes without NaN; NaN if nothing is left."""
    values = [value for image in images for value in image.values() if not math.isnan(value)]
    return math.fsum(values) / len(values) if values else math.nan
