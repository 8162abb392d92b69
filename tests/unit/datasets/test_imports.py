"""Ray is imported in two modules only: the Ray Data dataset, and the student's trainer."""

from __future__ import annotations

import ast
import subprocess
import sys

from tests.conftest import ROOT

PACKAGES = ("datasets", "evaluation", "student", "report")
IMPORTS_OF_A_USER = "salip_ray.datasets.pseudo_labels, salip_ray.evaluation.outputs"


def imports_ray(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        if any(name == "ray" or name.startswith("ray.") for name in names):
            return True
    return False


def test_two_modules_import_ray():
    package = ROOT / "salip_ray"
    files = [path for name in PACKAGES for path in (package / name).rglob("*.py")]
    with_ray = {str(path.relative_to(package)) for path in files if imports_ray(path)}
    assert with_ray == {"datasets/ray.py", "student/trainer.py"}


def test_reading_labels_and_scores_loads_neither_ray_nor_torch():
    code = f"import sys, {IMPORTS_OF_A_USER}; print({{'ray', 'torch', 'monai'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
