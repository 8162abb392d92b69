"""Reading and writing outputs needs neither Ray nor the pipeline."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import salip_ray.output

MODULES = sorted(
    f"salip_ray.output.{module.name}" for module in pkgutil.iter_modules(salip_ray.output.__path__)
)


def test_output_loads_neither_ray_nor_torch_nor_the_pipeline():
    code = (
        f"import sys; import {', '.join(MODULES)}\n"
        "loaded = {'ray', 'torch', 'salip_ray.pipeline', 'salip_ray.cluster'} & set(sys.modules)\n"
        "print(sorted(loaded))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    assert len(MODULES) > 10
