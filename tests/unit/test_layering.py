"""The rooms stay apart: what the method may know, and what is imported when."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "salip_ray"
STORAGE = {"fsspec", "s3fs", "pyarrow.fs", "pyarrow.parquet", "pyarrow.dataset"}


def imported(path: Path) -> set[str]:
    """All modules a file imports anywhere, with their parents: ``a.b`` gives ``a`` and ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in found:
            parts = name.split(".")
            names.update(".".join(parts[: n + 1]) for n in range(len(parts)))
    return names


def modules(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("path", modules("cascade"), ids=str)
def test_the_method_knows_neither_ray_nor_storage(path):
    assert not imported(path) & ({"ray", "salip_ray.pipeline", "salip_ray.sources"} | STORAGE)


@pytest.mark.parametrize("path", modules("config", "models", "report", "sources"), ids=str)
def test_only_the_pipeline_knows_ray(path):
    assert "ray" not in imported(path)


def test_the_check_itself_sees_an_import_inside_a_function(tmp_path):
    (tmp_path / "m.py").write_text("def f():\n    from ray.data import Dataset\n")
    assert "ray" in imported(tmp_path / "m.py")


@pytest.mark.parametrize("module", ["salip_ray", "salip_ray.config", "salip_ray.cli"])
def test_light_imports_stay_light(module):
    code = f"import sys, {module}; print({{'torch', 'ray', 'cv2'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_driver_and_tasks_do_without_torch():
    code = "import sys, salip_ray.pipeline; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
