"""Labels as training data: map-style for torch, an iterator, or a Ray Data dataset."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from salip_ray.datasets.images import Images
from salip_ray.datasets.index import Entry
from salip_ray.datasets.reviews import Reviews
from salip_ray.datasets.samples import Sample, SampleReader
from salip_ray.datasets.selection import LabelLimits, describe_left_out, select
from salip_ray.datasets.splits import GroupBy, split
from salip_ray.errors import ConfigError, InputError
from salip_ray.output.masks import LabelMap
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.series import series_of

__all__ = ["PseudoLabels", "Sample"]


class PseudoLabels:
    """The labels of an output, as a dataset to train on.

    It is a map-style dataset as torch's ``DataLoader`` takes it: it has a length and items, and may
    be pickled and forked. It reads an image and its masks when the item is requested.

    An image is left out if it has no label of the wanted classes (unless ``negatives`` is set), or
    if one of its labels is below a limit, because a missed organ that passes for background teaches
    the wrong thing. Decisions of reviewers override that for the classes that they saw: rejected
    labels are left out, accepted and corrected ones pass every limit and have confidence 1.

    Args:
        output: an output of ``salip-ray label``, local or a URI.
        min_confidence: least confidence of each label of an image, 0 to 1.
        min_presence: least presence of each labelled class in the whole image, 0 to 1.
        min_area: least area of each mask: a share of the image up to 1, else pixels.
        negatives: use images without a label, too, as examples of background only.
        reviewed: use only images of which people accepted or corrected every class.
        classes: labels of the classes to use; all by default. Ids do not change.
        ignore_disagreement: set pixels on which candidate and refined mask differ to
            :attr:`ignore_index`.
        images_root: the folder to which the images' common folder has moved.
        transform: applied to each :class:`~salip_ray.datasets.samples.Sample`.
        storage_options: fsspec options of the output.
        image_options: fsspec options of the images.
        manifest: location of the job's manifest if it is not in the output.

    Raises:
        OutputError: ``output`` is not an output of ``salip-ray label``, or it hides the names of
            its images and the manifest is missing.
        ConfigError: a class is unknown, or a limit is out of range.
        InputError: no image is left.

    Examples:
        >>> from salip_ray import PseudoLabels
        >>> labels = PseudoLabels("labels")
        >>> sample = labels[0]  # image [H, W, 3], labels [H, W], confidence, image_id, uri
        >>> len(labels), sample["image"].shape[:2] == sample["labels"].shape
        (3, True)
    """

    def __init__(
        self,
        output: str,
        *,
        min_confidence: float = 0.0,
        min_presence: float = 0.0,
        min_area: float = 0.0,
        negatives: bool = False,
        reviewed: bool = False,
        classes: Collection[str] | None = None,
        ignore_disagreement: bool = False,
        images_root: str | None = None,
        transform: Callable[[Sample], Any] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        image_options: Mapping[str, Any] | None = None,
        manifest: str | None = None,
    ) -> None:
        self.limits = LabelLimits(
            min_confidence=min_confidence,
            min_presence=min_presence,
            min_area=min_area,
            negatives=negatives,
            reviewed=reviewed,
        )
        self.transform = transform
        opened = LabelOutput.open(output, storage_options, manifest)
        class_ids = _class_ids(opened, classes)
        reviews = Reviews.of(opened)
        selection = select(opened, reviews, class_ids, self.limits)
        self.left_out = dict(selection.left_out)
        self.entries: Sequence[Entry] = selection.entries
        if not self.entries:
            reasons = "; ".join(describe_left_out(self.left_out)) or "no image is labelled yet"
            raise InputError(
                f"{opened.uri} has no image to use for {', '.join(class_ids)}: {reasons}"
            )
        images = Images(
            selection.folder, images_root, opened.image_config, dict(image_options or {})
        )
        self.reader = SampleReader(opened, reviews, class_ids, images, ignore_disagreement)

    @property
    def output(self) -> LabelOutput:
        """The output that the labels come from."""
        return self.reader.output

    @property
    def class_ids(self) -> dict[str, int]:
        """The ids of the chosen classes in label maps, by label."""
        return dict(self.reader.class_ids)

    @property
    def ignore_index(self) -> int:
        """The value of pixels that a loss must ignore: 255, or 65535 in 16-bit maps."""
        return self.reader.ignore_index

    @property
    def may_ignore(self) -> bool:
        """True if label maps may hold :attr:`ignore_index`: corrections and a consensus may."""
        reviews, ids = self.reader.reviews, self.class_ids.values()
        return (
            self.reader.ignore_disagreement
            or self.output.is_consensus
            or any(
                decision.verdict == "corrected" and self.ignore_index in (decision.values or ())
                for entry in self.entries
                if entry.image_id in reviews.decisions
                for decision in reviews.standing(entry.image_id, ids).values()
            )
        )

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Any:
        sample = self.sample(self.entries[index])
        return sample if self.transform is None else self.transform(sample)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def sample(self, entry: Entry) -> Sample:
        """Return the image and labels of an entry, before the transform.

        Raises:
            InputError: the image is missing, unreadable or of another size than its labels.
        """
        return self.reader.sample(entry)

    def masks(self, entry: Entry) -> Sequence[Mapping[str, Any]]:
        """Return the mask cells (:data:`salip_ray.schema.MASK_TYPE`) of an entry's classes."""
        return self.reader.masks(entry)

    def label_map(self, entry: Entry) -> LabelMap:
        """Return the label map [H, W] of an entry: class ids, 0 and :attr:`ignore_index`."""
        return self.reader.label_map(entry)

    def split(
        self, shares: Mapping[str, float], *, seed: int = 0, group_by: GroupBy = "image"
    ) -> dict[str, PseudoLabels]:
        r"""Return disjoint parts; every patient, volume or folder is in one part only.

        Args:
            shares: part -> share of the images, as ``{"train": 0.8, "val": 0.2}``.
            seed: the same seed gives the same split.
            group_by: what must stay together: ``"image"`` (with all slices of its volume),
                ``"folder"``, a regular expression on the URI such as ``r"patient(\d+)"``, or a
                function of the URI.

        Raises:
            ConfigError: the shares do not add up to 1, or there are fewer groups than parts.
        """
        parts = self.split_indices(shares, seed=seed, group_by=group_by)
        return {name: self.subset(indices) for name, indices in parts.items()}

    def split_indices(
        self, shares: Mapping[str, float], *, seed: int = 0, group_by: GroupBy = "image"
    ) -> dict[str, list[int]]:
        """Return the indices of the parts of :meth:`split`."""
        by_image = group_by == "image"
        # All that a DICOM series holds shows one patient, in however many volumes.
        names = [
            series_of(entry.volume) if by_image and entry.volume else entry.picture.uri
            for entry in self.entries
        ]
        shown = [entry.uri for entry in self.entries]
        return split(names, shares, seed=seed, group_by=group_by, shown=shown)

    def subset(self, indices: Sequence[int]) -> PseudoLabels:
        """Return the items at some indices as a dataset."""
        part = copy.copy(self)
        part.entries = [self.entries[index] for index in indices]
        return part

    def with_transform(self, transform: Callable[[Sample], Any] | None) -> PseudoLabels:
        """Return the same items with another transform."""
        part = copy.copy(self)
        part.transform = transform
        return part

    def ray_dataset(self, *, concurrency: int = 2, cpus: float = 1.0) -> Any:
        """Return the items as a lazy Ray Data dataset: :func:`salip_ray.datasets.ray.to_ray`."""
        from salip_ray.datasets.ray import to_ray

        return to_ray(self, concurrency=concurrency, cpus=cpus)


def _class_ids(output: LabelOutput, chosen: Collection[str] | None) -> dict[str, int]:
    known = {spec.label: spec.class_id for spec in output.classes}
    if unknown := sorted(set(chosen or ()) - set(known)):
        raise ConfigError(f"{output.uri} has no class {unknown[0]!r}: it has {', '.join(known)}")
    return {label: i for label, i in known.items() if chosen is None or label in chosen}
