"""The workers of a search: what keeps images, and what tries recipes on them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from salip_ray.config import Config, ProposeConfig
from salip_ray.tuning.labelled_split import load

if TYPE_CHECKING:
    from salip_ray.tuning.search import Search

_TEXTS = "kept/texts.npz"


class Keeper:
    """Does for an image, once, all that needs SAM's or CLIP's encoder; an actor.

    Args:
        search: what is searched.
        running: the recipes that are still tried.
    """

    def __init__(self, search: Search, running: Sequence[int]) -> None:
        import torch

        from salip_ray.cascade.proposer import SamProposer
        from salip_ray.models.loading import load_proposer, load_refiner, load_retriever
        from salip_ray.tuning.cache import grid_key, laxest

        torch.set_num_threads(search.threads)
        self.search = search
        self.configs = [search.recipes[number].config for number in running]
        config = self.configs[0]
        sam = load_proposer(config).sam
        self.clip = load_retriever(config).clip
        grids: dict[str, list[ProposeConfig]] = {}
        for each in self.configs:
            grids.setdefault(grid_key(each.propose), []).append(each.propose)
        self.proposers = {
            key: SamProposer(sam, config.model_copy(update={"propose": laxest(knobs)}))
            for key, knobs in grids.items()
        }
        self.encode = None
        if config.refine.sam is not None:
            self.encode = load_refiner(config).encode

    def keep(self, image: int) -> None:
        """Write what trials need of the image at a place of the split."""
        from salip_ray.tuning.cache import keep_image, to_bytes
        from salip_ray.tuning.trials import KnownTexts

        search, config = self.search, self.configs[0]
        if search.store.read(_TEXTS) is None:
            search.store.write(_TEXTS, KnownTexts.of(self.clip, config).to_bytes())
        pixels, masks = load(search.images[image], search.references, config)
        kept = keep_image(pixels, masks, self.configs, self.proposers, self.clip, self.encode)
        search.store.write(search.kept_name(image), to_bytes(kept))


class TrialRun(Trainable):
    """A recipe on a rung's images, one a step; its scores are written when it is through.

    The models stay loaded when the actor goes on with another recipe.
    """

    def setup(  # type: ignore[override]  # Tune hands on what with_parameters was given
        self, config: dict[str, Any], search: Search, rung: int, places: range
    ) -> None:
        """Load the refiner's SAM and the texts, once for all trials of this actor."""
        import torch

        from salip_ray.models.loading import load_refiner
        from salip_ray.tuning.trials import KnownTexts

        torch.set_num_threads(search.threads)
        self.search, self.rung, self.places = search, rung, places
        given: Config = search.recipes[0].config
        self.sam = load_refiner(given, decoder_only=True).sam
        data = search.store.read(_TEXTS)
        assert data is not None, "texts are kept before anything is tried"
        self.texts = KnownTexts.from_bytes(data)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another recipe."""
        self.number: int = new_config["number"]
        self.scores: list[dict[str, float | None]] = []
        self.trial: Any = None
        return True

    def step(self) -> dict[str, Any]:
        """Try the recipe on the next image. What it cannot do is its end, and not the search's."""
        error = ""
        try:
            self.scores.append(self._next())
        except Exception as problem:  # noqa: BLE001
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        done = bool(error) or len(self.scores) == len(self.places)
        if done:
            found = {"scores": self.scores, "error": error}
            name = self.search.trial_name(self.rung, self.number)
            self.search.store.write(name, json.dumps(found).encode())
        return {"images": len(self.scores), "done": done}

    def _next(self) -> dict[str, float | None]:
        from salip_ray.tuning.cache import from_bytes
        from salip_ray.tuning.trials import Trial

        if self.trial is None:
            self.trial = Trial(self.search.recipes[self.number].config, self.sam, self.texts)
        place = self.places[len(self.scores)]
        data = self.search.store.read(self.search.kept_name(place))
        assert data is not None, "images are kept before anything is tried on them"
        found = self.trial.dice(from_bytes(data))
        return {label: None if math.isnan(value) else value for label, value in found.items()}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial that broke off begins its rung again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as well."""
