"""Replace a worker after a number of images, for libraries that leak memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

_DELIVERY_SECONDS = 2.0  # for the blocks of the last batch to be delivered


class Recycler:
    """End this process between two batches, once it has processed a number of images.

    For libraries that leak: Ray restarts the actor and gives it the waiting batches.

    Args:
        after: number of images; None never ends it.
    """

    def __init__(self, after: int | None) -> None:
        self._after, self._done = after, 0
        self._busy = threading.Lock()

    @contextlib.contextmanager
    def busy(self, images: int) -> Iterator[None]:
        """Keep the process alive for the time of a batch."""
        with self._busy:
            yield
            self._done += images
        if self._after is not None and self._done >= self._after:
            threading.Thread(target=self._end, name="recycle", daemon=True).start()

    def _end(self) -> None:
        time.sleep(_DELIVERY_SECONDS)
        with self._busy:  # a batch that started in the meantime is finished first
            os._exit(0)
