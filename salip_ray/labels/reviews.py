"""What people decided about labels, beside the shards that they never change.

OUT/reviews/decisions.json        image id -> corrected, accepted or rejected
OUT/reviews/masks/IMAGE_ID.png    corrected label maps
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from salip_ray.errors import OutputError
from salip_ray.labels.masks import LabelMap, decode_png
from salip_ray.labels.writing import write_whole
from salip_ray.sources.locations import filesystem, join, normalise, public_uri

Verdict = Literal["corrected", "accepted", "rejected"]
_FILE = "reviews/decisions.json"


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's verdict on the label of one image."""

    verdict: Verdict


@dataclass
class Reviews:
    """The decisions kept in an output, by image id."""

    uri: str
    decisions: dict[str, Decision]
    _fs: Any = field(repr=False)
    _root: str = field(repr=False)

    @classmethod
    def open(cls, output: str, storage_options: Mapping[str, Any] | None = None) -> Reviews:
        """Read the decisions of an output; most have none.

        Raises:
            OutputError: they cannot be read.
        """
        fs, root = filesystem(normalise(output), storage_options)
        uri = public_uri(output)
        try:
            data = json.loads(fs.cat_file(join(root, _FILE)))
        except FileNotFoundError:
            data = {"decisions": {}}
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise OutputError(f"{join(uri, _FILE)} is not valid JSON") from None
        decisions = {name: Decision(**value) for name, value in data["decisions"].items()}
        return cls(uri, decisions, fs, root)

    def save(self, decisions: Mapping[str, Decision], maps: Mapping[str, bytes]) -> None:
        """Add decisions, later ones replacing earlier ones, and the PNGs of corrected label maps.

        Raises:
            OutputError: the output cannot be written.
        """
        self.decisions = dict(sorted({**self.decisions, **decisions}.items()))
        data = {"decisions": {name: asdict(value) for name, value in self.decisions.items()}}
        try:
            self._fs.makedirs(join(self._root, "reviews/masks"), exist_ok=True)
            for image_id, png in maps.items():
                write_whole(self._fs, join(self._root, _mask_file(image_id)), png)
            # Last: a decision never names a mask that is not there.
            write_whole(self._fs, join(self._root, _FILE), json.dumps(data, indent=1).encode())
        except OSError as error:
            raise OutputError(f"cannot write {join(self.uri, 'reviews')}: {error}") from None

    def label_map(self, image_id: str) -> LabelMap:
        """The corrected label map [H, W] of an image.

        Raises:
            OutputError: it is missing or unreadable.
        """
        try:
            return decode_png(self._fs.cat_file(join(self._root, _mask_file(image_id))))
        except (FileNotFoundError, ValueError):
            place = join(self.uri, _mask_file(image_id))
            raise OutputError(f"{place} is missing or not a label map: import it again") from None


def _mask_file(image_id: str) -> str:
    return f"reviews/masks/{image_id}.png"
