"""Steps 3 and 4: show every candidate to CLIP, and select the best of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.cascade.ranking import Ranker
from salip_ray.cascade.visual_prompts import visual_prompt
from salip_ray.config import Config, RetrieveConfig
from salip_ray.schema import Candidate, Image, Selection

if TYPE_CHECKING:
    from salip_ray.models.clip.load import ClipModel


class ClipRetriever:
    """Retrieve candidates with CLIP.

    Args:
        clip: a CLIP in eval mode, on the device to use.
        config: its ``retrieve`` section is used, and the classes, distractors, companions and top-k
            of its ``task``.
    """

    def __init__(self, clip: ClipModel, config: Config) -> None:
        self.clip = clip
        self.config = config.retrieve
        self.ranker = Ranker(clip, config)

    def __call__(self, working: Image, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """Select up to ``top_k`` distinct candidates of each class, in class order, best first.

        Of equal merits the lower candidate id wins.

        Args:
            working: the working image, uint8 RGB [H, W, 3].
            candidates: candidates of that image, in any order.
        """
        candidates = sorted(candidates, key=lambda candidate: candidate.id)
        return self.ranker.select(self.image_features(working, candidates), candidates)

    def set_batch_size(self, size: int) -> None:
        """Show ``size`` candidates to CLIP at a time from now on."""
        self.config = self.config.model_copy(update={"batch_size": size})

    def image_features(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """Return unit image features of the candidates, float32 [n, d] on CLIP's device."""
        return mean_features(
            [
                prompt_features(self.clip, working, candidates, config)
                for config in single_prompts(self.config)
            ]
        )

    def scores(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """Return 100 * cosine of each candidate and class, float32 [n, n_classes] on the CPU."""
        return self.ranker.scores(self.image_features(working, candidates))


def single_prompts(config: RetrieveConfig) -> Iterator[RetrieveConfig]:
    """Yield one configuration for each visual prompt and padding that a candidate is shown in."""
    paddings = ("none", "square") if config.padding == "both" else (config.padding,)
    for prompt in config.visual_prompts:
        for padding in paddings:
            yield config.model_copy(
                update={"visual_prompt": prompt, "ensemble": (), "padding": padding}
            )


def prompt_features(
    clip: ClipModel, working: Image, candidates: Sequence[Candidate], config: RetrieveConfig
) -> Tensor:
    """Return unit image features of one visual prompt of each candidate, float32 [n, d].

    Args:
        clip: the model.
        working: the working image, uint8 RGB [H, W, 3].
        candidates: candidates of that image.
        config: one of :func:`single_prompts`; ``batch_size`` candidates are encoded at a time.
    """
    size = config.batch_size
    batches = [
        clip.encode_images(
            [visual_prompt(working, c, config) for c in candidates[start : start + size]]
        )
        for start in range(0, len(candidates), size)
    ]
    return torch.cat(batches) if batches else torch.zeros(0, 0)


def mean_features(features: Sequence[Tensor]) -> Tensor:
    """Return the normalised mean of unit features [n, d], one tensor for each visual prompt."""
    if len(features) == 1:
        return features[0]
    return F.normalize(torch.stack(list(features)).mean(dim=0), dim=-1)
