"""Watching a job from its output alone until it is over: ``salip-ray status --follow``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from salip_ray.errors import NotBegunError, OutputError, SalipError
from salip_ray.labels.status import Status, Watch
from salip_ray.sources.locations import public_uri
from salip_ray.sources.stores import said, uncovered

#: How long a store that fails is asked again.
PATIENCE_SECONDS = 300.0


def follow(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    manifest: str | None = None,
    every: float = 10.0,
    wait: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Status]:
    """Yield how far a job is, until it is complete or nobody is at it any more.

    A driver that was killed is taken for alive until its lease has run out.

    Args:
        output: a location that ``salip-ray label`` writes, or is about to.
        storage_options: fsspec's, for a remote output.
        manifest: where its manifest is kept, if not in the output.
        every: seconds between two looks.
        wait: seconds that a job which nobody is at may take to begin, or to be gone on with.
        clock: the time, in seconds.
        sleep: waits.

    Raises:
        NotBegunError: nothing was begun within ``wait``.
        OutputError: the output cannot be read, or not by this version.
    """
    watch: Watch | None = None
    seen = answered = clock()  # somebody at the job; the store
    while True:
        now = clock()
        try:
            watch = watch or Watch(output, storage_options, manifest=manifest)
            status = watch.read()
        except NotBegunError:
            if now - seen >= wait:
                raise
            answered = now
        except SalipError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
            if now - answered >= PATIENCE_SECONDS:
                problem = said(uncovered(error), output)
                raise OutputError(f"cannot read {public_uri(output)}: {problem}") from None
        else:
            answered = now
            yield status
            if status.state == "running":
                seen = now
            elif status.state == "complete" or now - seen >= wait:
                return
        sleep(every)
