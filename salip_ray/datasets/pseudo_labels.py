"""Labels as training data: map-style for torch, a plain iterator, or a Ray Data dataset."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from salip_ray.datasets.images import Images
from salip_ray.datasets.index import Entry, cascade_masks, entries
from salip_ray.datasets.reviews import Decision, Reviews, drawn_cells, heeded
from salip_ray.datasets.splits import GroupBy, split
from salip_ray.errors import ConfigError, InputError
from salip_ray.output.masks import LabelMap, decode_rle, label_map, read_mask
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Image

_ROW_GROUPS_KEPT = 16
_MASK_COLUMNS = ("masks",)


class Sample(TypedDict):
    """One image with its labels.

    ``image`` is uint8 RGB [H, W, 3]; ``labels`` holds class ids [H, W], 0 for the background and
    :attr:`PseudoLabels.ignore_index` where nothing should be learnt. ``confidence`` is that of the
    least certain class.
    """

    image: Image
    labels: LabelMap
    confidence: float
    image_id: str
    uri: str


class PseudoLabels:
    """The labels of an output, as something to train on.

    A map-style dataset as torch's ``DataLoader`` takes it: it has a length and items, may be
    pickled and forked, and reads images and masks, from local disk or any store, only when an item
    is asked for. Images without any label of the wanted classes are left out, and so are images of
    which a label is less certain than ``min_confidence``: a missed organ that passes for background
    teaches the wrong thing. What a person has decided counts more, for the classes that the person
    saw: a rejected label is left out, an accepted one has the confidence 1, a corrected one that
    and what the person drew, which may be a class that the cascade did not find.

    Args:
        output: an output of ``salip-ray label``, local or a URI.
        min_confidence: the least confidence of every label of an image, 0 to 1.
        classes: the classes to keep, by label; all by default. Ids do not change.
        ignore_disagreement: mark the pixels where proposal and refined mask differ with
            :attr:`ignore_index`.
        images_root: the folder that the images' common folder has moved to.
        transform: applied to each :class:`Sample`.
        storage_options: fsspec options of the output.
        image_options: fsspec options of the images.
        manifest: where the run's manifest is kept, if not in the output.

    Raises:
        OutputError: ``output`` is not the output of ``salip-ray label``, or hides the names of its
            images and the manifest is missing.
        ConfigError: a class is unknown, or ``min_confidence`` out of range.
        InputError: no label is left.
    """

    def __init__(
        self,
        output: str,
        *,
        min_confidence: float = 0.0,
        classes: Collection[str] | None = None,
        ignore_disagreement: bool = False,
        images_root: str | None = None,
        transform: Callable[[Sample], Any] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        image_options: Mapping[str, Any] | None = None,
        manifest: str | None = None,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise ConfigError(f"min_confidence must be within 0 and 1, found {min_confidence}")
        self._source = (output, dict(storage_options or {}), manifest)
        self._labels: LabelOutput | None = None
        self._groups: OrderedDict[tuple[str, int], list[dict[str, Any]]] = OrderedDict()
        labels = self.labels
        self.classes = _chosen(labels, classes)
        self.min_confidence = min_confidence
        self.ignore_disagreement = ignore_disagreement
        self.transform = transform
        self.reviews = Reviews.open(output, storage_options)
        found = list(entries(labels, self.classes, self.reviews.corrected))
        ids = self.class_ids
        #: By image id and class id the decisions that stand.
        self.decided = {
            entry.image_id: self.reviews.standing(entry.image_id, ids.values())
            for entry in found
            if entry.image_id in self.reviews.decisions
        }
        known = (heeded(entry, self._standing(entry), ids) for entry in found)
        kept = [entry for entry in known if entry is not None]
        # A label whose confidence is not known (NaN) passes where there is no limit, only.
        self.entries: Sequence[Entry] = [
            entry for entry in kept if entry.confidence >= min_confidence or not min_confidence
        ]
        if not self.entries:
            raise InputError(
                f"{labels.uri} has no label to train on: {len(kept)} images have one of the "
                f"classes {', '.join(self.classes)}, and none at min_confidence {min_confidence:g}"
            )
        uris = (entry.picture.uri for entry in found)
        self.images = Images.of(uris, images_root, labels.image_config, image_options)

    def _standing(self, entry: Entry) -> Mapping[int, Decision]:
        return self.decided.get(entry.image_id, {})

    @property
    def labels(self) -> LabelOutput:
        """The output itself."""
        if self._labels is None:
            self._labels = LabelOutput.open(*self._source)
        return self._labels

    @property
    def class_ids(self) -> dict[str, int]:
        """The ids of the kept classes in label maps, by label."""
        return {s.label: s.class_id for s in self.labels.classes if s.label in self.classes}

    @property
    def ignore_index(self) -> int:
        """The value of pixels that should not count in a loss: 255, or 65535 in 16-bit maps."""
        return 255 if len(self.labels.classes) <= 254 else 65_535

    @property
    def may_ignore(self) -> bool:
        """Whether label maps may hold :attr:`ignore_index`: corrections may."""
        return self.ignore_disagreement or any(
            decision.verdict == "corrected" and self.ignore_index in (decision.values or ())
            for standing in self.decided.values()
            for decision in standing.values()
        )

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Any:
        entry = self.entries[index]
        sample = self.sample(entry)
        return sample if self.transform is None else self.transform(sample)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens its own connections.
        return {**self.__dict__, "_labels": None, "_groups": OrderedDict()}

    def shuffled(self, seed: int) -> Iterator[Any]:
        """All items, in an order that visits shards at random and the rows of each at random.

        A fully random order reads a part of another shard for every item; over a network this one
        is many times as fast, and random enough where shards are many.
        """
        chance = random.Random(seed)  # noqa: S311  (not for secrets)
        shards: dict[str, list[int]] = {}
        for index, entry in enumerate(self.entries):
            shards.setdefault(entry.shard, []).append(index)
        order = list(shards.values())
        chance.shuffle(order)
        for indices in order:
            chance.shuffle(indices)
            for index in indices:
                yield self[index]

    def sample(self, entry: Entry) -> Sample:
        """The image and labels of an entry, before the transform.

        Raises:
            InputError: the image is not there, cannot be read or has another size than its labels.
        """
        image = self.images.load(entry.picture)
        if image.shape[:2] != (entry.height, entry.width):
            raise InputError(
                f"image {self.images.place(entry.picture.uri)} is "
                f"{image.shape[0]} x {image.shape[1]} (height x width), but was "
                f"{entry.height} x {entry.width} when it was labelled"
            )
        return Sample(
            image=image,
            labels=self.label_map(entry),
            confidence=entry.confidence,
            image_id=entry.image_id,
            uri=entry.uri,
        )

    def masks(self, entry: Entry) -> Sequence[Mapping[str, Any]]:
        """The mask cells (:data:`salip_ray.schema.MASK_TYPE`) of an entry's kept classes."""
        drawn = self.reviews.drawn(self._standing(entry), self.ignore_index)
        by_hand = [] if drawn is None else drawn_cells(drawn, self.class_ids)
        return [*self._cascade_masks(entry), *by_hand]

    def _cascade_masks(self, entry: Entry) -> list[Mapping[str, Any]]:
        """The cascade's mask cells, but for classes that a person corrected or rejected."""
        standing = self._standing(entry)
        row = self.labels.row(entry.shard, entry.row, _MASK_COLUMNS, self._groups)
        while len(self._groups) > _ROW_GROUPS_KEPT:
            self._groups.popitem(last=False)
        gone = {i for i, decision in standing.items() if decision.verdict != "accepted"}
        return [c for c in cascade_masks(row, self.classes) if c["class_id"] not in gone]

    def label_map(self, entry: Entry) -> LabelMap:
        """Class ids [H, W] of an entry, with :attr:`ignore_index` where that was asked for.

        What a person drew lies above what the cascade found.
        """
        standing = self._standing(entry)
        cells = self._cascade_masks(entry)
        merged = label_map(
            [read_mask(cell) for cell in cells],
            entry.height,
            entry.width,
            n_classes=len(self.labels.classes),
        )
        if self.ignore_disagreement:
            for cell in cells:
                if cell["class_id"] not in standing and cell["proposed"] is not None:
                    unsure = decode_rle(cell["proposed"]) != decode_rle(cell["rle"])
                    merged[unsure] = self.ignore_index
        drawn = self.reviews.drawn(standing, self.ignore_index)
        if drawn is not None:
            merged[drawn > 0] = drawn[drawn > 0]
        return merged

    def split(
        self, shares: Mapping[str, float], *, seed: int = 0, group_by: GroupBy = "image"
    ) -> dict[str, PseudoLabels]:
        r"""Parts of these labels, every patient, volume or folder in one of them only.

        Args:
            shares: part -> share of the images, as ``{"train": 0.8, "val": 0.2}``.
            seed: another one gives another split; the same one always the same.
            group_by: what must stay together: ``"image"`` (with it all slices of its volume),
                ``"folder"``, a regular expression on the URI such as ``r"patient(\d+)"``, or a
                function of it.

        Raises:
            ConfigError: the shares do not add up to 1, or there are fewer groups than parts.
        """
        parts = split(self.split_names(group_by), shares, seed=seed, group_by=group_by)
        return {name: self.subset(indices) for name, indices in parts.items()}

    def split_names(self, group_by: GroupBy) -> list[str]:
        """What :func:`salip_ray.datasets.splits.split` makes the group of each entry from."""
        if group_by == "image":  # the files of a series are one image
            return [entry.volume or entry.picture.uri for entry in self.entries]
        return [entry.picture.uri for entry in self.entries]

    def subset(self, indices: Sequence[int]) -> PseudoLabels:
        """These items alone."""
        part = object.__new__(PseudoLabels)
        part.__dict__.update(self.__getstate__())
        part.entries = [self.entries[index] for index in indices]
        return part

    def with_transform(self, transform: Callable[[Sample], Any] | None) -> PseudoLabels:
        """The same items, each through another transform."""
        part = self.subset(range(len(self)))
        part.transform = transform
        return part

    def ray_dataset(self, **options: Any) -> Any:
        """The samples as a lazy Ray Data dataset: :func:`salip_ray.datasets.ray.feed`."""
        from salip_ray.datasets.ray import feed

        return feed(self, **options)


def _chosen(labels: LabelOutput, classes: Collection[str] | None) -> tuple[str, ...]:
    known = [spec.label for spec in labels.classes]
    if classes is None:
        return tuple(known)
    if unknown := sorted(set(classes) - set(known)):
        raise ConfigError(f"no class {unknown[0]!r} in {labels.uri}: it has {', '.join(known)}")
    return tuple(label for label in known if label in classes)
