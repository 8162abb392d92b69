"""The memory of a job while it runs: ``python -m tests.chaos.soak spec.json``.

It labels on a separate Ray, samples every process twice a second, and prints the peaks as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_EVERY = 0.5  # seconds
_STORE_BYTES = 200_000_000


class Peaks:
    """Peak memory of each kind of process and of the object store, sampled by a thread."""

    def __init__(self) -> None:
        import ray
        from ray._private.internal_api import get_state_from_address

        self.mib: dict[str, float] = defaultdict(float)
        self.actors: set[int] = set()
        self._state = get_state_from_address(ray.get_runtime_context().gcs_address)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peaks", daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, Any]:
        """Stop; return the peaks in MiB and the number of actor processes."""
        self._over.set()
        self._thread.join(timeout=30)
        peaks = {kind: round(most, 1) for kind, most in sorted(self.mib.items())}
        return {"peak_mib": peaks, "actors": len(self.actors)}

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        import psutil
        from ray._private.internal_api import get_memory_info_reply

        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                name, held = " ".join(process.cmdline()), process.memory_info()
            except psutil.Error:
                continue
            kind = "driver" if process.pid == me.pid else _kind(name)
            if kind is not None:
                # Shared memory is the object store, which is counted separately.
                self.mib[kind] = max(self.mib[kind], (held.rss - held.shared) / 2**20)
            if kind == "actor":
                self.actors.add(process.pid)
        used = get_memory_info_reply(self._state).store_stats.object_store_bytes_used
        self.mib["object store"] = max(self.mib["object store"], used / 2**20)


def _kind(name: str) -> str | None:
    if not name.startswith("ray::"):
        return None
    if name.startswith("ray::MapWorker"):
        return "actor"
    return "monitor" if name.startswith("ray::Monitor") else "task"


def main(spec_file: str) -> None:
    """Label with the settings in the file."""
    spec = json.loads(Path(spec_file).read_text())
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    from salip_ray import label, load_config
    from salip_ray.pipeline import dataflow

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={
            "worker_process_setup_hook": "tests.chaos.hooks.install",
            "env_vars": {"SALIP_CHAOS_HOOK": spec["hook"], "PYTHONPATH": str(ROOT)},
        },
    )
    peaks = Peaks()
    config = load_config("lungs", overrides=spec["settings"])
    dataflow._LARGEST_BLOCK = spec["block"]
    summary = label(spec["input"], spec["output"], config, quiet=True)
    print(json.dumps({"images": summary.images, **peaks.stop()}))  # noqa: T201
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
