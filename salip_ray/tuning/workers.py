"""The Ray workers of a search: one kind caches images, the other tries recipes on them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from salip_ray.config import Config, ProposeConfig
from salip_ray.tuning.labelled_split import load
from salip_ray.wording import one_line

if TYPE_CHECKING:
    from salip_ray.tuning.search import Search


class CacheWorker:
    """An actor that runs SAM's and CLIP's encoders on images and caches the results.

    Args:
        search: the search.
        running: numbers of the recipes that are still tried.
    """

    def __init__(self, search: Search, running: Sequence[int]) -> None:
        import torch

        from salip_ray.cascade.loading import (
            load_clip_retriever,
            load_sam_proposer,
            load_sam_refiner,
        )
        from salip_ray.cascade.proposer import SamProposer
        from salip_ray.tuning.cache import grid_key, loosest_settings

        torch.set_num_threads(search.threads)
        self.search = search
        self.configs = [search.recipes[number].config for number in running]
        config = self.configs[0]
        sam = load_sam_proposer(config).sam
        self.clip = load_clip_retriever(config).clip
        grids: dict[str, list[ProposeConfig]] = {}
        for each in self.configs:
            grids.setdefault(grid_key(each.propose), []).append(each.propose)
        self.proposers = {
            key: SamProposer(sam, config.model_copy(update={"propose": loosest_settings(settings)}))
            for key, settings in grids.items()
        }
        self.encode = None
        if config.refine.sam is not None:
            self.encode = load_sam_refiner(config).encode

    def cache(self, index: int) -> None:
        """Cache what trials need of the image at ``index`` of the labelled split."""
        from salip_ray.tuning.cache import cache_image, to_bytes
        from salip_ray.tuning.trials import CachedTexts

        search, config = self.search, self.configs[0]
        if search.store.read(search.texts_name) is None:
            texts = CachedTexts.of(self.clip, config)
            search.write(search.texts_name, texts.to_bytes())
        pixels, masks = load(search.images[index], search.references, config)
        cached = cache_image(pixels, masks, self.configs, self.proposers, self.clip, self.encode)
        search.write(search.cache_name(index), to_bytes(cached))


class TrialWorker(Trainable):
    """A recipe on the images of a rung, one image per step. It writes its scores at the end.

    The models stay loaded when the actor takes another recipe.
    """

    def setup(  # type: ignore[override]  # Tune passes on the arguments of with_parameters
        self, config: dict[str, Any], search: Search, rung: int, indices: range
    ) -> None:
        """Load what all trials of this actor share: the refiner's SAM and the cached texts."""
        import torch

        from salip_ray.cascade.loading import load_sam_refiner
        from salip_ray.tuning.search import caches_encoders
        from salip_ray.tuning.trials import CachedTexts

        torch.set_num_threads(search.threads)
        self.search, self.rung, self.indices = search, rung, indices
        given: Config = search.recipes[0].config
        self.cached = caches_encoders(given)
        if self.cached:
            self.sam = load_sam_refiner(given, decoder_only=True).sam
            data = search.store.read(search.texts_name)
            assert data is not None, "texts are cached before the first trial"
            self.texts = CachedTexts.from_bytes(data)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another recipe."""
        self.number: int = new_config["number"]
        self.scores: list[dict[str, float | None]] = []
        self.trial: Any = None
        return True

    def step(self) -> dict[str, Any]:
        """Score the recipe on the next image. An error ends this recipe and not the search."""
        error = ""
        try:
            self.scores.append(self._score_next())
        except Exception as problem:  # noqa: BLE001
            error = f"{type(problem).__name__}: {one_line(problem)}"
        done = bool(error) or len(self.scores) == len(self.indices)
        if done:
            scores = {"scores": self.scores, "error": error}
            name = self.search.trial_name(self.rung, self.number)
            self.search.write(name, json.dumps(scores).encode())
        return {"images": len(self.scores), "done": done}

    def _score_next(self) -> dict[str, float | None]:
        from salip_ray.tuning.cache import from_bytes
        from salip_ray.tuning.trials import Trial, WholeTrial

        config = self.search.recipes[self.number].config
        index = self.indices[len(self.scores)]
        if self.cached:
            if self.trial is None:
                self.trial = Trial(config, self.sam, self.texts)
            data = self.search.store.read(self.search.cache_name(index))
            assert data is not None, "images are cached before the first trial"
            scores = self.trial.dice(from_bytes(data))
        else:
            if self.trial is None:
                self.trial = WholeTrial(config)
            scores = self.trial.dice(
                *load(self.search.images[index], self.search.references, config)
            )
        return {label: None if math.isnan(value) else value for label, value in scores.items()}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: an interrupted trial starts its rung again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""
