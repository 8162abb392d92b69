"""Recipes side by side on the same cached proposals, and the images they are tried on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cached import CachedImage, Item, cached_images

from salip_ray.cascade.compose import CascadeMasks, compose
from salip_ray.cascade.geometry import to_original
from salip_ray.cascade.loading import load_proposer, load_retriever
from salip_ray.cascade.ranking import Ranker
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.cascade.retriever import mean_features
from salip_ray.config import Config, load_config
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import TARGETS, make_phantom
from salip_ray.schema import Candidate, ClipScores, Image, ImageRef, Mask, Selection
from salip_ray.tuning.cache import mask_digest, prompt_keys

#: Task -> kind of phantom.
ORGANS = {"lungs": "chest_xray", "brain": "brain_mri", "fetal_head": "fetal_ultrasound"}
_EVERYTHING = ("task.min_area=0", "task.max_area=1")
_MIN_SHARE = 0.03  # of a real image that the organ covers
_BEAM = 8  # sets that the search for the best choice keeps


def phantoms(kind: str, bank: str, count: int) -> list[Item]:
    """Phantoms 0 to ``count`` - 1 of a bank, with the organ that its task is about."""

    def load(index: int) -> tuple[Image, Mask]:
        phantom = make_phantom(kind, index, bank=bank)
        return phantom.image, phantom.mask(TARGETS[kind])

    return [Item(f"{kind}-{bank}-{i:04d}", partial(load, i)) for i in range(count)]


def real_images(task: str, output: Path) -> list[Item]:
    """Return the real images of a task; none if there are none on this machine."""
    from realdata import SETS, real_data

    from salip_ray.cascade.geometry import class_references
    from salip_ray.sources.decode import decode
    from salip_ray.sources.references import References

    folder, lay_out, _ = SETS[task]
    if not (real_data() / folder).is_dir():
        return []
    config = load_config(task)
    images, index = lay_out(real_data() / folder, output / "inputs" / task)
    if images.is_dir():
        uris = sorted(str(path) for path in images.iterdir())
    else:
        uris = images.read_text(encoding="utf-8").replace('"', "").split()[1:]
    references = References.open(str(index))

    def load(uri: str) -> tuple[Image, Mask]:
        results = references.load(references.find(ImageRef(uri)))
        (mask,) = class_references(results, config.task.classes).values()
        return decode(Path(uri).read_bytes(), uri, config.image), mask

    # Only images with the organ have a best candidate.
    uris = [uri for uri in uris if load(uri)[1].mean() > _MIN_SHARE]
    return [Item(f"real-{Path(uri).stem}", partial(load, uri)) for uri in uris]


class Bench:
    """One set of proposals and models, and any number of variants on it."""

    def __init__(self, folder: Path, preset: str) -> None:
        self.folder, self.preset = folder, preset
        # Any task will do: everything SAM proposes is cached.
        self.config = load_config("lungs", preset=preset, overrides=_EVERYTHING)
        self.proposer = load_proposer(self.config)
        self.sam = self.proposer.sam
        self.clip = load_retriever(self.config).clip

    def cached(self, items: Sequence[Item], *variants: Variant) -> Iterator[CachedImage]:
        """Yield the images with all that the variants need, one at a time."""
        views = {view for v in variants for view, _ in prompt_keys(v.config.retrieve)}
        return cached_images(self.folder, self.config, items, views, self.proposer, self.clip)

    def variant(self, task: str, *overrides: str, name: str = "") -> Variant:
        """Return the cascade with some options of a preset changed."""
        # All images are labelled: what is measured is the choice among candidates.
        overrides = ("task.min_confidence=0", *overrides)
        config = load_config(task, preset=self.preset, overrides=overrides)
        return Variant(name, config, Ranker(self.clip, config), SamRefiner(self.sam, config))


@dataclass(frozen=True)
class Variant:
    """One recipe on cached proposals."""

    name: str
    config: Config
    ranker: Ranker
    refiner: SamRefiner

    def candidates(self, cached: CachedImage) -> list[Candidate]:
        """Those within the task's area limits."""
        low, high = self.config.area_limits(*cached.working_size)
        return [c for c in cached.candidates if low < c.area < high]

    def label(
        self, cached: CachedImage, selections: Sequence[Selection] | None = None
    ) -> CascadeMasks:
        """Label an image, by given selections if retrieval is not what is measured."""
        candidates = self.candidates(cached)
        if selections is None:
            selections = self._select(cached, candidates)
        (spec,) = self.config.task.classes
        return compose(
            self.config,
            self.refiner,
            candidates=candidates,
            n_proposed=len(cached.candidates),
            embedding=cached.embedding,
            selections=selections,
            working_size=cached.working_size,
            original_size=(cached.reference.shape[0], cached.reference.shape[1]),
            references={spec.label: cached.reference},
        )

    def _select(
        self, cached: CachedImage, candidates: Sequence[Candidate]
    ) -> tuple[Selection, ...]:
        """Select candidates by their cached features."""
        if not candidates:
            return ()
        digests = [mask_digest(candidate.mask) for candidate in candidates]
        features = [
            torch.from_numpy(np.stack([cached.features[key][digest] for digest in digests]))
            for key, _ in prompt_keys(self.config.retrieve)
        ]
        return self.ranker.select(mean_features(features), candidates)

    def oracle(self, cached: CachedImage) -> float:
        """Return the Dice of the best possible choice of candidates.

        Searched among the recipe's own choice and the sets whose masks, united, come closest to the
        reference: a beam of ``_BEAM`` sets, each made larger by one candidate at a time. All of
        them are refined, as a set of good masks is not always one of good boxes.
        """
        (spec,) = self.config.task.classes
        pool = {c.id: to_original(c.mask, cached.reference.shape) for c in self.candidates(cached)}
        beam: list[tuple[int, ...]] = [()]
        results: list[tuple[int, ...]] = []
        for _ in range(spec.most(len(pool))):
            closeness = {
                tuple(sorted((*chosen, number))): dice(
                    np.logical_or.reduce([pool[c] for c in (*chosen, number)]), cached.reference
                )
                for chosen in beam
                for number in pool
                if number not in chosen
            }
            beam = sorted(closeness, key=lambda chosen: -closeness[chosen])[:_BEAM]
            results += beam
        best = scores(self.label(cached), cached).get("cascade", 0.0)
        for chosen in results:
            selections = [
                Selection(spec.label, spec.class_id, number, rank, ClipScores(0.0))
                for rank, number in enumerate(chosen)
            ]
            best = max(best, scores(self.label(cached, selections), cached).get("cascade", 0.0))
        return best


def scores(labels: CascadeMasks, cached: CachedImage) -> dict[str, float]:
    """Dice of every method against the reference; a method without a mask has 0."""
    return {mask.method: dice(mask.mask, cached.reference) for mask in labels.masks}
