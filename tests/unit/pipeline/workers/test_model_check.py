"""A worker builds your own models once before a job starts, and answers with one line."""

from __future__ import annotations

from salip_ray import load_config
from salip_ray.pipeline.workers.model_check import build_model

build = build_model._function  # in this process, as a worker runs it


class Works:
    def __init__(self, context):
        pass


class Raises:
    def __init__(self, context):
        raise ValueError("there is no licence\nfor this model")


class NeedsAnother:
    def __init__(self, context):
        import a_library_of_tomorrow  # noqa: F401


def config_of(model):
    return load_config("lungs", overrides=[f"propose.model={model}", "refine.model=none"])


def test_a_model_that_can_be_built_has_no_problem():
    assert build(config_of(f"{__name__}:Works"), "propose") == ""


def test_a_factory_that_raises_is_named_in_one_line():
    problem = build(config_of(f"{__name__}:Raises"), "propose")
    assert problem == (
        f"propose.model {__name__}:Raises cannot be built: ValueError: there is no licence for "
        "this model"
    )


def test_code_that_is_not_on_the_worker_says_how_to_ship_it():
    problem = build(config_of("not_shipped.models:Mine"), "propose")
    assert problem.startswith("propose.model not_shipped.models:Mine: not_shipped.models cannot be")
    assert "salip-ray submit --ship" in problem


def test_a_family_whose_package_is_not_on_the_worker_says_how_to_ship_it():
    problem = build(config_of("not_shipped"), "propose")
    assert problem.startswith("propose.model 'not_shipped' is not known")
    assert "salip-ray submit --ship" in problem


def test_a_library_that_is_missing_on_the_worker_is_named():
    problem = build(config_of(f"{__name__}:NeedsAnother"), "propose")
    assert "No module named 'a_library_of_tomorrow'" in problem
    assert "\n" not in problem
