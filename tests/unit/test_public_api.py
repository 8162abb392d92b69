"""The names that ``import salip_ray`` offers."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import salip_ray
import salip_ray.pipeline
from salip_ray import errors


def test_every_public_name_can_be_imported_and_is_listed():
    for name in salip_ray.__all__:
        assert getattr(salip_ray, name).__name__ == name
    assert set(salip_ray.__all__) <= set(dir(salip_ray))
    assert salip_ray.__all__ == sorted(salip_ray.__all__)


def test_every_error_of_the_package_is_public():
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert classes <= set(salip_ray.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lable'"):
        _ = salip_ray.lable


def test_type_checkers_see_every_name():
    source = Path(salip_ray.__file__)
    (block,) = (
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imported = {alias.name for node in block.body for alias in node.names}
    assert imported == set(salip_ray.__all__)
    assert (source.parent / "py.typed").is_file()


def test_import_loads_no_heavy_package():
    code = (
        "import sys, salip_ray; dir(salip_ray); salip_ray.ConfigError; "
        "print({'torch', 'ray', 'numpy', 'fsspec', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", salip_ray.__all__)
def test_every_public_name_has_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(salip_ray, name))


def test_no_module_of_the_pipeline_hides_what_it_exports():
    modules = {module.name for module in pkgutil.iter_modules(salip_ray.pipeline.__path__)}
    assert not modules & set(salip_ray.pipeline.__all__)
