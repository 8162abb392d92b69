"""One recipe on kept images: what the cascade would label, and its Dice."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from salip_ray.cascade.cascade import compose
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.config import Config, RetrieveConfig
from salip_ray.evaluation.overlap import dice
from salip_ray.models.clip.load import ClipModel
from salip_ray.schema import Candidate, Image, Selection
from salip_ray.tuning.cache import Features, KeptImage, ViewKey, digest


@dataclass(frozen=True)
class KnownTexts:
    """The sentences of a task as CLIP's text tower gives them: all that a trial needs of CLIP."""

    features: Mapping[str, Tensor]
    logit_scale: float

    @classmethod
    def of(cls, clip: ClipModel, config: Config) -> KnownTexts:
        """Encode the sentences of a task's classes and distractors."""
        specs = (*config.task.classes, *config.task.competitors)
        sentences = list(dict.fromkeys(text for spec in specs for text in spec.sentences))
        found = clip.encode_texts(sentences, normalize=False).cpu()
        return cls(dict(zip(sentences, found, strict=True)), clip.logit_scale)

    def to_bytes(self) -> bytes:
        """As one file."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            sentences=np.array(list(self.features)),
            features=torch.stack(list(self.features.values())).numpy(),
            logit_scale=np.array(self.logit_scale),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> KnownTexts:
        """From its file."""
        with np.load(io.BytesIO(data)) as arrays:
            features = torch.from_numpy(arrays["features"])
            sentences = [str(text) for text in arrays["sentences"]]
            return cls(dict(zip(sentences, features, strict=True)), float(arrays["logit_scale"]))

    def encode_texts(self, sentences: Sequence[str], *, normalize: bool = True) -> Tensor:
        """As :meth:`salip_ray.models.clip.load.ClipModel.encode_texts`, from memory."""
        found = torch.stack([self.features[sentence] for sentence in sentences])
        return torch.nn.functional.normalize(found, dim=-1) if normalize else found


class CachedRetriever(ClipRetriever):
    """A retriever that remembers what CLIP saw.

    Args:
        texts: a CLIP, or what it makes of the task's sentences.
        config: as for :class:`~salip_ray.cascade.retriever.ClipRetriever`.
    """

    def __init__(self, texts: KnownTexts | ClipModel, config: Config) -> None:
        super().__init__(texts, config)  # type: ignore[arg-type]
        self._seen: Mapping[ViewKey, Features] = {}

    def choose(
        self, seen: Mapping[ViewKey, Features], candidates: Sequence[Candidate]
    ) -> tuple[Selection, ...]:
        """Selections among an image's candidates, from what CLIP saw in them."""
        self._seen = seen
        return self(np.zeros((1, 1, 3), np.uint8), candidates)

    def _view(
        self, _working: Image, candidates: Sequence[Candidate], config: RetrieveConfig
    ) -> Tensor:
        if not candidates:
            return self.text_features[:0]
        known = self._seen[config.visual_prompt, config.padding, config.expand_px]
        features = torch.from_numpy(np.stack([known[digest(c.mask)] for c in candidates]))
        return features.to(self.text_features.device)


class Trial:
    """A recipe, ready to be tried.

    Args:
        config: the recipe.
        sam: the refiner's SAM; its decoder is enough.
        texts: of the task.
    """

    def __init__(self, config: Config, sam: Sam, texts: KnownTexts) -> None:
        self.config = config.model_copy(
            update={"run": config.run.model_copy(update={"modes": ("cascade",)})}
        )
        self.retriever = CachedRetriever(texts, config)
        self.refiner = SamRefiner(sam, config)

    @torch.no_grad()
    def dice(self, kept: KeptImage) -> dict[str, float]:
        """The Dice of each class; NaN where neither label nor reference has it."""
        candidates, n_proposed = kept.candidates(self.config)
        labels = compose(
            self.config,
            self.refiner,
            candidates=candidates,
            n_proposed=n_proposed,
            embedding=kept.embedding,
            selections=self.retriever.choose(kept.features, candidates),
            working_size=kept.working_size,
            original_size=kept.original_size,
        )
        found = {mask.label: mask.mask for mask in labels.masks}
        nothing = np.zeros(kept.original_size, np.bool_)
        return {
            label: dice(found.get(label, nothing), reference)
            for label, reference in kept.references.items()
        }


def mean_dice(images: Sequence[Mapping[str, float]]) -> float:
    """The mean over images and classes of what is not NaN; NaN of nothing."""
    counted = [value for image in images for value in image.values() if not math.isnan(value)]
    return math.fsum(counted) / len(counted) if counted else math.nan
