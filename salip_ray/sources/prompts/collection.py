"""The prompts of a location, by image.

Five forms are read: a COCO file (``.json``) of boxes, outlines or keypoints, a table (``.csv`` or
``.parquet``) of boxes or points, a folder of YOLO's text files, and masks as references have them
or of DICOM Segmentations, whose components become boxes as GT-SAM's do. An image has the prompts of
its whole URI, or else of the last parts of its path (:mod:`salip_ray.sources.prompts.names`); a
segmentation names it by SOPInstanceUID.

The candidates of a location are read in the same way. They have no class, and masks and outlines
stay masks.
"""

from __future__ import annotations

import functools
import hashlib
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from salip_ray.config import ClassSpec
from salip_ray.errors import ImageError, InputError, SalipError
from salip_ray.schema import ImageRef, Mask, Size
from salip_ray.sources.coco_masks import decode_mask
from salip_ray.sources.decode import IMAGE_SUFFIXES, NOT_DICOM_SUFFIXES
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.stack import Plane
from salip_ray.sources.locations import filesystem, normalise, public_uri
from salip_ray.sources.prompts.checks import label_of, refuse_shares
from salip_ray.sources.prompts.files import GivenBox, read_bytes, read_coco
from salip_ray.sources.prompts.names import Matches, match_names, spell
from salip_ray.sources.prompts.placing import require_same_plane
from salip_ray.sources.prompts.tables import is_mask_index, read_table
from salip_ray.sources.prompts.yolo import read_yolo
from salip_ray.sources.reference_files import whole_key
from salip_ray.sources.references import References
from salip_ray.sources.stores import describe_error

_SEGMENTATIONS = frozenset({".dcm", ".dicom"})
PromptKey: TypeAlias = tuple[str, int | None]  #: name of an image, and the index of a slice


@dataclass(frozen=True)
class Prompts:
    """The boxes of a location, by image.

    Attributes:
        location: public URI.
        are_candidates: whether they are shown to CLIP, instead of having a class.
        sha256: of all boxes and their classes, or of the content of masks.
        boxes: by the names that the files give to images, as one spelling has them; as JSON, since
            every task that decodes images loads all of them.
        masks: masks whose components are the boxes, instead of ``boxes``.
        has_points: whether points are among them.
        segments: masks of DICOM Segmentations whose components are the boxes, by SOPInstanceUID of
            their image; frame, class, RLE and plane of each, as JSON.
        matches: which name each image of the input has; :meth:`among` finds it.
        unused: prompts of no image of the input, as they are shown to the user.
    """

    location: str
    sha256: str
    boxes: Mapping[PromptKey, str] = field(default_factory=dict, repr=False)
    masks: References | None = None
    matches: Matches = field(default_factory=Matches, repr=False)
    unused: tuple[str, ...] = field(default=(), repr=False)
    has_points: bool = False
    segments: Mapping[str, str] = field(default_factory=dict, repr=False)
    are_candidates: bool = False

    @classmethod
    def open(
        cls,
        location: str,
        classes: Sequence[ClassSpec] | None,
        storage_options: Mapping[str, Any] | None = None,
        *,
        outlines: bool = False,
    ) -> Prompts:
        """Read the boxes of a file or folder.

        Args:
            location: a file or folder, as described above.
            classes: of the task; a box of no class belongs to the only one. None: they are
                candidates, and the classes that the location names mean nothing.
            storage_options: of the location's store.
            outlines: take the masks of a COCO file, not their boxes.

        Raises:
            InputError: the location cannot be read, names a class that the task lacks, or names no
                class although the task has several.
        """
        where = normalise(location)
        shown = f"{_noun(classes is None)} {public_uri(where)}"
        try:
            outlines = outlines or classes is None
            opened = cls._open(where, shown, classes, storage_options, outlines)
            return replace(opened, location=public_uri(where), are_candidates=classes is None)
        except SalipError:
            raise
        except Exception as error:  # noqa: BLE001  (clients of stores raise many types)
            problem = describe_error(error, where)
            raise InputError(f"{shown} cannot be read: {problem}") from None

    @property
    def noun(self) -> str:
        """What they are called: ``prompts`` or ``candidates``."""
        return _noun(self.are_candidates)

    @property
    def identity(self) -> dict[str, str]:
        """Location and content, for the fingerprint of a job."""
        return {"uri": self.location, "sha256": self.sha256}

    @classmethod
    def _open(
        cls,
        where: str,
        shown: str,
        classes: Sequence[ClassSpec] | None,
        options: Mapping[str, Any] | None,
        outlines: bool,
    ) -> Prompts:
        fs, path = filesystem(where, options)
        kind = suffix(where)
        is_folder = fs.isdir(path)
        if not is_folder and not fs.exists(path):
            raise InputError(f"{shown} do not exist: check the path")
        if kind in _SEGMENTATIONS and not is_folder:
            return cls._of_segmentations(fs, [path], shown, classes)
        if kind in {".json", ".csv", ".parquet"} and not is_folder:
            data = read_bytes(fs, path)
            if kind == ".csv" and is_mask_index(data, shown):
                return cls._of_masks(where, shown, options)
            read = (
                read_coco(data, shown, outlines=outlines)
                if kind == ".json"
                else read_table(data, kind, shown)
            )
        elif is_folder:
            files = [name for name in sorted(fs.find(path)) if not _is_hidden(name, path)]
            names = [name for name in files if suffix(name) == ".txt"]
            objects = [name for name in files if suffix(name) in _SEGMENTATIONS]
            if objects and not names:
                return cls._of_segmentations(fs, objects, shown, classes)
            if not names and not any(suffix(name) in {*IMAGE_SUFFIXES, ".csv"} for name in files):
                raise InputError(
                    f"{shown} hold neither text files of YOLO nor masks nor DICOM "
                    "Segmentations: check the folder"
                )
            if not names:
                return cls._of_masks(where, shown, options)
            read = read_yolo(fs, path, names, shown)
        else:
            raise InputError(
                f"{shown} are no file of boxes or points: give .json (COCO), .csv or "
                ".parquet, a DICOM Segmentation (.dcm), or a folder of those, of YOLO's text files "
                "or of masks"
            )
        known = None if classes is None else [spec.label for spec in classes]
        boxes: dict[PromptKey, list[GivenBox]] = {}
        spelled = functools.cache(spell)
        for name, index, box in read:
            label = str(box.label) if known is None else label_of(box.label, known, shown)
            boxes.setdefault((spelled(name), index), []).append(box.labelled(label))
        if not boxes:
            raise InputError(f"{shown} hold no box and no point")
        refuse_shares((box for of_image in boxes.values() for box in of_image), shown)
        frozen = {
            key: json.dumps([box.to_json() for box in boxes[key]]) for key in sorted(boxes, key=str)
        }
        text = json.dumps(list(frozen.items()))
        has_points = any(box.points for of_image in boxes.values() for box in of_image)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(shown, digest, frozen, has_points=has_points)

    @classmethod
    def _of_masks(cls, where: str, shown: str, options: Mapping[str, Any] | None) -> Prompts:
        masks = References.open(where, options)
        return cls(shown, masks.digest(), masks=masks)

    @classmethod
    def _of_segmentations(
        cls, fs: Any, paths: Sequence[str], shown: str, classes: Sequence[ClassSpec] | None
    ) -> Prompts:
        from salip_ray.sources.prompts.segmentations import read_segmentation  # loads pydicom

        masks: dict[str, list[Any]] = {}
        for path in paths:
            name = shown if len(paths) == 1 else f"{shown}/{posixpath.basename(path)}"
            for item in read_segmentation(read_bytes(fs, path), name, classes):
                cells = [item.frame, item.label, item.rle, item.plane]
                masks.setdefault(item.instance, []).append(cells)
        if not masks:
            raise InputError(f"{shown} hold no pixel of a segment")
        segments = {uid: json.dumps(masks[uid]) for uid in sorted(masks)}
        # The plane decides no label: it only refuses a mask.
        named = [(uid, json.dumps([cells[:3] for cells in masks[uid]])) for uid in sorted(masks)]
        digest = hashlib.sha256(json.dumps(named).encode()).hexdigest()
        return cls(shown, digest, segments=segments)

    def among(self, images: Iterable[ImageRef]) -> Prompts:
        """Return the boxes for the images of one run.

        Raises:
            InputError: no image has a prompt.
        """
        listed = list(images)
        if self.segments:  # which name their images by what is in the files
            if all(suffix(image.uri) in NOT_DICOM_SUFFIXES for image in listed):
                raise InputError(
                    f"no image of the input is a DICOM file, so none has a mask in {self.location}"
                )
            return self
        uris = {image.uri for image in listed}
        if self.masks is not None:
            masks = self.masks.among(uris)
            used = {mask.uri for image in listed if (mask := masks.named(image)) is not None}
            unclear = any(map(masks.ambiguity, listed))
            unused = tuple(sorted(map(public_uri, masks.uris() - used)))
            chosen = replace(self, masks=masks, unused=unused)
            count = len(used)
        else:
            matches = match_names({name for name, _ in self.boxes}, uris)
            keys = {(matches.names.get(whole_key(image.uri), ""), image.index) for image in listed}
            unclear = bool(matches.unclear)
            unused = tuple(_shown_key(key) for key in self.boxes if key not in keys)
            chosen = replace(self, matches=matches, unused=unused)
            count = len(self.boxes) - len(unused)
        if not count and not unclear:
            raise InputError(
                f"no image of the input has a {self.noun[:-1]} in {self.location} (the first is of "
                f"{unused[0]}): check the names, and slices if the images are volumes"
            )
        return chosen

    def find(self, image: ImageRef) -> tuple[GivenBox, ...]:
        """Return the boxes of an image; none if it has none.

        Raises:
            ImageError: it is not clear which image the boxes are of.
        """
        key = whole_key(image.uri)
        if reason := self.matches.unclear.get(key):
            raise ImageError(f"{reason}: list whole paths of images to tell them apart")
        name = self.matches.names.get(key)
        cells = json.loads(self.boxes.get((name or "", image.index), "[]"))
        return tuple(map(GivenBox.from_json, cells))

    def segmented(
        self, instance: str | None, index: int | None, size: Size, plane: Plane | None = None
    ) -> dict[str, Mask]:
        """Return the masks [H, W] of the classes on a DICOM image.

        Args:
            instance: its SOPInstanceUID.
            index: of its frame; None if it has one.
            size: its height and width.
            plane: where it lies in the patient, if known.

        Raises:
            ImageError: a mask has another size, lies elsewhere, or does not name its frame.
        """
        masks: dict[str, Mask] = {}
        for frame, label, rle, own in json.loads(self.segments.get(instance or "", "[]")):
            if frame is None and index is not None:
                raise ImageError(
                    "its segmentation does not name the frame (ReferencedFrameNumber) of this "
                    "multi-frame object"
                )
            if frame not in {None, index or 0}:
                continue
            if tuple(rle["size"]) != size:
                raise ImageError(
                    f"its segmentation has {rle['size'][0]} x {rle['size'][1]} pixels, its image "
                    f"{size[0]} x {size[1]}"
                )
            require_same_plane(own, plane, size)
            masks[label] = masks.get(label, np.zeros(size, np.bool_)) | decode_mask(rle)
        return masks


def _noun(are_candidates: bool) -> str:
    return "candidates" if are_candidates else "prompts"


def _is_hidden(name: str, path: str) -> bool:
    return any(part.startswith(".") for part in posixpath.relpath(name, path).split("/"))


def _shown_key(key: PromptKey) -> str:
    name, index = key
    name = name.encode("utf-8", "backslashreplace").decode()
    return name if index is None else f"{name}, slice {index}"
