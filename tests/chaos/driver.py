"""The driver of a chaos run: the same job as the command line's, on a running Ray.

It runs in a separate process, to be killed: ``python -m tests.chaos.driver spec.json``.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(spec_file: str) -> None:
    """Label with the settings in the file."""
    spec = json.loads(Path(spec_file).read_text())
    import ray

    from salip_ray import label, load_config

    environment = {
        "worker_process_setup_hook": "tests.chaos.hooks.install",
        "env_vars": {
            "SALIP_CHAOS_HOOK": spec["hook"],
            "SALIP_CHAOS_HOLD": spec["hold"],
            "PYTHONPATH": str(ROOT),
        },
    }
    ray.init(
        address=spec["address"],
        runtime_env=environment if spec["hook"] else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    config = load_config("lungs", overrides=spec["settings"])
    config = config.model_copy(
        update={"storage": config.storage.model_copy(update=spec["storage"])}
    )
    label(spec["input"], spec["output"], config)


if __name__ == "__main__":
    main(sys.argv[1])
