"""Images that an export cannot read: it continues without them, counts them and lists them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from typing import TypeVar

from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.samples import Sample
from salip_ray.errors import InputError
from salip_ray.schema import Image
from salip_ray.wording import counted

UNREADABLE = "unreadable.csv"
_COLUMNS = ("image_id", "uri", "reason")
_GIVE_UP = 20  # images that fail before any is read: more likely all have moved

T = TypeVar("T")


class Unreadable:
    """Reads the images of an export, and remembers those that cannot be read.

    Args:
        labels: what is exported.
        destination: where to; the list of an earlier run there is read.
    """

    def __init__(self, labels: PseudoLabels, destination: Destination) -> None:
        self.reasons: dict[str, str] = {}
        self._labels, self._destination = labels, destination
        self._uris: dict[str, str] = {}
        self._earlier = _parsed(destination.read(UNREADABLE))
        self._may_give_up = not destination.resumed

    def sample(self, entry: Entry) -> Sample | None:
        """Return image and labels of an entry, or None if the image cannot be read.

        Raises:
            InputError: none of the first images can be read.
        """
        return self._attempt(entry, lambda: self._labels.sample(entry))

    def image(self, entry: Entry) -> Image | None:
        """Return the image of an entry as :meth:`sample` does."""
        images = self._labels.reader.images
        return self._attempt(entry, lambda: images.load(entry.picture, entry.uri))

    def carry_over(self, entries: Iterable[Entry]) -> None:
        """Keep what an earlier run found, for entries of a file that it completed."""
        for entry in entries:
            if reason := self._earlier.get(entry.image_id):
                self._add(entry, reason)

    def save(self) -> None:
        """Write the list; before a file from which these images are missing."""
        if self.reasons or self._earlier:
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for image_id, reason in self.reasons.items():
                writer.writerow((image_id, self._uris[image_id], reason))
            self._destination.write(UNREADABLE, text.getvalue())

    def finish(self, total: int) -> int:
        """Save the list and count it; return how many of ``total`` images were written.

        Raises:
            InputError: none was.
        """
        self.save()
        if self.reasons and len(self.reasons) == total:
            raise self._nothing_read()
        if self.reasons:
            self._labels.left_out["unreadable"] = len(self.reasons)
        return total - len(self.reasons)

    def _attempt(self, entry: Entry, load: Callable[[], T]) -> T | None:
        try:
            loaded = load()
        except InputError as error:
            self._add(entry, str(error))
            if self._may_give_up and len(self.reasons) == _GIVE_UP:
                raise self._nothing_read() from None
            return None
        self._may_give_up = False
        return loaded

    def _add(self, entry: Entry, reason: str) -> None:
        self.reasons[entry.image_id], self._uris[entry.image_id] = reason, entry.uri

    def _nothing_read(self) -> InputError:
        first = next(iter(self.reasons.values()))
        if len(self.reasons) == 1:
            return InputError(first)
        number = counted(len(self.reasons), "image")
        return InputError(f"none of {number} can be read; the first: {first}")


def _parsed(data: bytes | None) -> dict[str, str]:
    if data is None:
        return {}
    rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
    return {row["image_id"]: row["reason"] for row in rows}
