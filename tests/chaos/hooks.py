"""Changes of the workers of a chaos run; the harness names them in a runtime environment.

Ray calls the function that ``SALIP_CHAOS_HOOK`` names in every worker process before it works. The
package itself knows nothing of this.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

POISON = "/0003.png"
DEATHS = "deaths"  #: the file next to the hold that names what workers died on
_HOLD = 300.0  # seconds that a commit is held at most


def install() -> None:
    """Install the hook that the environment names, if it names one.

    It waits for its module to be imported: many workers of Ray never need it, and it takes seconds.
    """
    name = os.environ.get("SALIP_CHAOS_HOOK")
    if name:
        for module, change in HOOKS[name]:
            sys.meta_path.insert(0, _Waiting(module, change))


class _Waiting(importlib.abc.MetaPathFinder):
    """Changes a module right after it was imported."""

    def __init__(self, module: str, change: Callable[[], None]) -> None:
        self._module, self._change = module, change

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the one module as everybody else does, and have it changed."""
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            self._change()

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def slow_commits() -> None:
    """Pause between the files of a commit; stay there while the harness holds commits."""
    from salip_ray.output.store import Store

    write = Store.write

    def slow(self: Store, name: str, data: bytes) -> None:
        write(self, name, data)
        if name.startswith(("masks/", "stats/")):
            time.sleep(0.25)
            hold, deadline = Path(os.environ["SALIP_CHAOS_HOLD"]), time.monotonic() + _HOLD
            while hold.exists() and time.monotonic() < deadline:
                time.sleep(0.02)

    Store.write = slow  # type: ignore[method-assign]


def slow_images() -> None:
    """Take so long for an image that commits begin while others are still labelled."""
    from salip_ray.pipeline.actors import StageActor

    process = StageActor.process

    def slow(self: StageActor, stage: Any, *about: Any) -> dict[str, Any]:
        if stage.name == "propose":
            time.sleep(0.3)
        return process(self, stage, *about)

    StageActor.process = slow  # type: ignore[method-assign]


def broken_sink() -> None:
    """Commit as a careless sink would: the Parquet file first and in place, its last row twice."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from salip_ray.output.store import Store

    write = Store.write

    def careless(self: Store, name: str, data: bytes) -> None:
        if name == "shards/part-00000.parquet":
            rows = pq.read_table(io.BytesIO(data))
            buffer = io.BytesIO()
            pq.write_table(pa.concat_tables([rows.slice(1), rows.slice(1, 1)]), buffer)
            data = buffer.getvalue()
        write(self, name, data)

    Store.write = careless  # type: ignore[method-assign]


def poison() -> None:
    """Kill the worker that proposes on one certain image, as a broken library would."""
    import signal

    from salip_ray.pipeline.actors import StageActor
    from salip_ray.pipeline.rows.row import Row

    process = StageActor.process

    def dying(self: StageActor, stage: Any, row: Row, before: Any, died: Any) -> dict[str, Any]:
        is_poison = row.cells["uri"].as_py().endswith(POISON)
        if stage.name == "propose" and is_poison and died is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return process(self, stage, row, before, died)

    StageActor.process = dying  # type: ignore[method-assign]


def _die(uri: str, doing: str) -> None:
    """Kill this worker if a file is planted to die from what it does now; note the death."""
    import signal

    if f"{doing}-kills" in uri:
        with Path(os.environ["SALIP_CHAOS_HOLD"]).with_name(DEATHS).open("a") as file:
            file.write(f"{Path(uri).name}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def dying_files() -> None:
    """Kill the worker that fetches, opens or decodes a file of a certain name, or its reference."""
    from salip_ray.pipeline.decoding import decode, files

    fetch, open_file, find = files.fetch_files, files.open_file, decode.find_references

    def fetch_or_die(listed: Any, *more: Any) -> Any:
        for row in listed:
            _die(row["uri"], "fetch")
        return fetch(listed, *more)

    def open_or_die(uri: str, *more: Any) -> Any:
        _die(uri, "open")
        return open_file(uri, *more)

    def find_or_die(picture: Any, *more: Any) -> Any:
        _die(picture.uri, "reference")
        return find(picture, *more)

    files.fetch_files = fetch_or_die
    files.open_file = open_or_die
    decode.find_references = find_or_die


def dying_images() -> None:
    """Kill the worker that brings an image of a certain name through a certain stage."""
    from salip_ray.pipeline.actors import StageActor
    from salip_ray.pipeline.rows.row import Row

    process = StageActor.process

    def dying(self: StageActor, stage: Any, row: Row, before: Any, died: Any) -> dict[str, Any]:
        if died is None and row.status == "ok":
            _die(row.cells["uri"].as_py(), stage.name)
        return process(self, stage, row, before, died)

    StageActor.process = dying  # type: ignore[method-assign]


def leak() -> None:
    """Lose a mebibyte an image in PROPOSE, as a broken library would."""
    from salip_ray.pipeline.actors import StageActor

    process, lost = StageActor.process, []

    def leaking(self: StageActor, stage: Any, *about: Any) -> dict[str, Any]:
        if stage.name == "propose":
            lost.append(os.urandom(1 << 20))
        return process(self, stage, *about)

    StageActor.process = leaking  # type: ignore[method-assign]


_SPARE_BYTES = 2 * 2**30  # that a worker may allocate


def _limit_memory() -> None:
    """Let this process allocate a little more than it holds now."""
    import resource

    status = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held * 1024 + _SPARE_BYTES, most))


def limited_actors() -> None:
    """Limit the memory of an actor once its models are loaded."""
    import resource

    from salip_ray.pipeline.actors import StageActor

    load = StageActor.__init__

    def load_and_limit(self: StageActor, *arguments: Any, **more: Any) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))  # the process may have run a task
        load(self, *arguments, **more)
        _limit_memory()

    StageActor.__init__ = load_and_limit  # type: ignore[method-assign]


_STORE, _ACTORS = "salip_ray.output.store", "salip_ray.pipeline.actors"
_DECODE = "salip_ray.pipeline.decoding.decode"
HOOKS = {
    "slow": ((_STORE, slow_commits), (_ACTORS, slow_images)),
    "broken_sink": ((_STORE, broken_sink),),
    "poison": ((_ACTORS, poison),),
    "dying": ((_DECODE, dying_files), (_ACTORS, dying_images)),
    "leak": ((_ACTORS, leak),),
    "limited": ((_DECODE, _limit_memory), (_ACTORS, limited_actors)),
}
