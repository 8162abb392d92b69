"""What the packages may import: see "Packages" in CONTRIBUTING.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import Import, cycles, imports_of, loaded_by, module_names

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "salip_ray"
IO = {"fsspec", "s3fs", "pydicom", "nibabel", "filelock"}


def all_of(package: str) -> list[str]:
    return [name for name in module_names(PACKAGE) if f"{name}.".startswith(f"{package}.")]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """All imports in the package."""
    return imports_of(PACKAGE)


@pytest.mark.parametrize("package", ["cascade", "evaluation", "output"])
def test_cascade_evaluation_and_output_load_no_ray(package):
    assert "ray" not in loaded_by(all_of(f"salip_ray.{package}"), ROOT)


def test_the_cascade_loads_neither_ray_nor_storage_nor_file_formats():
    assert not loaded_by(["salip_ray.cascade.cascade"], ROOT) & {"ray", *IO}


@pytest.mark.parametrize("module", ["salip_ray", "salip_ray.config", "salip_ray.cli"])
def test_light_imports_stay_light(module):
    assert not loaded_by([module], ROOT) & {"torch", "ray", "cv2"}


def test_help_texts_are_shown_without_loading_the_configuration():
    assert "pydantic" not in loaded_by(["salip_ray.cli"], ROOT)


def test_the_driver_of_a_job_loads_no_torch():
    assert "torch" not in loaded_by(["salip_ray.pipeline.job"], ROOT)


def test_the_driver_identifies_the_bundled_weights_without_torch():
    code = (
        "import sys; from salip_ray import load_config; "
        "from salip_ray.models.identity import identify; "
        "identify(load_config('lungs')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["pipeline.job", "pipeline.actors", "pipeline.sink"])
def test_a_process_of_a_job_loads_no_reader_that_its_files_do_not_need(module):
    assert not loaded_by([f"salip_ray.{module}"], ROOT) & {"pydicom", "nibabel", "scipy"}


def test_the_monitor_of_a_job_loads_no_data_frames():
    loaded = loaded_by(["salip_ray.pipeline.monitoring.monitor"], ROOT)
    assert not loaded & {"pandas", "cv2"}


def cycles_of(package: Path) -> list[list[str]]:
    return cycles(imports_of(package))


def test_no_modules_import_each_other(imports):
    assert cycles(imports) == []


def package_of(module: str) -> str:
    """Return the top-level package of a module: ``salip_ray.cascade``."""
    return ".".join(module.split(".")[:2])


def cycles_of_packages(imports: list[Import]) -> list[list[str]]:
    """Return groups of packages whose modules import each other."""
    between = (
        Import(package_of(each.module), package_of(each.imported), each.late)
        for each in imports
        if each.module.count(".") and each.imported.startswith("salip_ray.")
    )
    return cycles(each for each in between if each.module != each.imported)


def test_no_packages_import_each_other(imports):
    assert cycles_of_packages(imports) == []


def imports_of_cli(imports: list[Import]) -> list[Import]:
    """Imports of the command line by anything but itself."""
    allowed = ("salip_ray.cli.", "salip_ray.__main__.")
    return [
        each
        for each in imports
        if f"{each.imported}.".startswith("salip_ray.cli.")
        and not f"{each.module}.".startswith(allowed)
    ]


def test_only_the_command_line_imports_the_command_line(imports):
    assert imports_of_cli(imports) == []


def imports_of_checkout(imports: list[Import]) -> list[Import]:
    """Imports of what is not in the wheel."""
    outside = {"training", "tests", "benchmarks", "jobs", "tools"}
    return [each for each in imports if each.imported.partition(".")[0] in outside]


def test_the_package_imports_nothing_that_only_the_checkout_has(imports):
    assert imports_of_checkout(imports) == []


# The checks above can fail: each of them on a package made up for it.


@pytest.fixture
def package(tmp_path):
    def write(**modules: str) -> Path:
        folder = tmp_path / "salip_ray"
        for name, text in {"__init__": "", **modules}.items():
            path = folder / f"{name.replace('__of__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return write


def test_a_module_that_an_import_loads_indirectly_is_reported(package):
    folder = package(a="from . import b", b="def f(): pass\nimport wave")
    assert "wave" in loaded_by(["salip_ray.a"], folder.parent)
    assert "wave" not in loaded_by(["salip_ray"], folder.parent)


def test_a_cycle_is_reported_unless_an_import_is_late_or_for_types_only(package):
    assert cycles_of(
        package(a="from salip_ray import b", b="import salip_ray.c", c="from .a import x")
    )
    late = "def f():\n    from salip_ray.a import x"
    assert cycles_of(package(c=late)) == []
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from salip_ray.a import x"
    assert cycles_of(package(c=typing)) == []
    assert cycles_of(package(c="if True:\n    from salip_ray.a import x"))


def test_a_cycle_of_packages_is_reported_even_if_no_modules_form_one(package):
    folder = package(
        a__of____init__="",
        a__of__one="from salip_ray.b import one",
        a__of__two="",
        b__of____init__="",
        b__of__one="",
        b__of__two="from salip_ray.a.two import x",
    )
    assert cycles_of(folder) == []
    assert cycles_of_packages(imports_of(folder)) == [["salip_ray.a", "salip_ray.b"]]


def test_an_import_of_the_command_line_is_reported_even_in_a_function(package):
    folder = package(
        cli__of____init__="",
        cli__of__label="from salip_ray.cli import x",
        __main__="from salip_ray.cli import app",
        report="def f():\n    from salip_ray.cli.label import x",
    )
    assert [each.module for each in imports_of_cli(imports_of(folder))] == ["salip_ray.report"]


def test_an_import_of_training_code_is_reported(package):
    imports = imports_of(package(models="def f():\n    from training.options import x"))
    assert [each.module for each in imports_of_checkout(imports)] == ["salip_ray.models"]
