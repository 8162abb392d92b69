"""Families of models by name: built in, from a package, or by their code."""

from __future__ import annotations

import hashlib
import shutil
import sys

import pytest

from salip_ray.cascade.loading import load_proposer, load_refiner
from salip_ray.config import load_config
from salip_ray.errors import ConfigError, ModelError, WeightsError
from salip_ray.models import registry
from salip_ray.models.identity import identify, pin
from salip_ray.pipeline.stages import stages_of, stages_with_models

MODULE = '''
"""A module of models that no package owns."""

class Proposer:
    embedding = "mine"
    def __init__(self, context):
        self.context = context

class Labeller(Proposer):
    labels_candidates = True

class Refiner:
    embedding = "mine"
    def __init__(self, context):
        if context.options.get("broken"):
            raise OSError("no such\\ndevice")

number = 3
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write the module as ``own_models_of_a_test``, and forget it afterwards."""
    (tmp_path / "own_models_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models_of_a_test", raising=False)
    return "own_models_of_a_test"


def test_shipped_code_has_the_families_and_the_version_of_its_package(tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "shipped_toy").mkdir(parents=True)
    (site / "shipped_toy" / "__init__.py").write_text("def propose(context): return context")
    about = site / "shipped_toy-2.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shipped-toy\nVersion: 2.5\n")
    (about / "entry_points.txt").write_text("[salip_ray.models]\nshipped = shipped_toy\n")
    names = ("shipped_toy/__init__.py", f"{about.name}/METADATA", f"{about.name}/entry_points.txt")
    (about / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    for cached in (registry.find, registry._distribution_of):
        monkeypatch.setattr(registry, cached.__name__, cached.__wrapped__)
    config = load_config("lungs", overrides=["propose.model=shipped", "refine.model=none"])
    with monkeypatch.context() as here:
        here.syspath_prepend(site)
        code, identity = registry.code_of(config), registry.describe(config)
    assert code == [site / "shipped_toy", about]
    # Each folder arrives in a folder that is separate.
    for number, folder in enumerate(code):
        shutil.copytree(folder, tmp_path / str(number) / folder.name)
        monkeypatch.syspath_prepend(tmp_path / str(number))
    shutil.rmtree(site)
    assert registry.describe(config) == identity
    assert identity["propose"]["version"] == "2.5"


def config_of(**models):
    return load_config("lungs", overrides=models)


def own(module, name, **more):
    return {"model": f"{module}:{name}", **more}


def test_the_bundled_models_add_nothing_to_the_fingerprint():
    config = load_config("lungs")
    assert registry.describe(config) == {}
    assert {role: f.name for role, f in registry.needed(config).items()} == {
        "propose": "sam",
        "retrieve": "clip",
        "refine": "sam",
    }
    assert registry.shares_embedding(config)
    recipe = config.recipe()
    for stage in registry.ROLES:
        assert not {"model", "options", "weights"} & set(recipe[stage])


def test_code_that_no_package_owns_is_identified_by_its_hash(module, tmp_path):
    config = config_of(propose=own(module, "Proposer"))
    digest = hashlib.sha256((tmp_path / f"{module}.py").read_bytes()).hexdigest()
    code = f"{module}:Proposer"
    assert registry.describe(config) == {"propose": {"model": code, "code": code, "sha256": digest}}
    assert registry.code_of(config) == [tmp_path / f"{module}.py"]
    assert config.recipe()["propose"]["model"] == code


@pytest.mark.parametrize(
    ("changes", "stages", "models"),
    [
        ({}, ["propose", "retrieve", "refine"], ["propose", "retrieve", "refine"]),
        ({"propose": "Labeller"}, ["propose", "refine"], ["propose", "refine"]),
        ({"refine": "none"}, ["propose", "retrieve", "refine"], ["propose", "retrieve"]),
        ({"propose": "Labeller", "refine": "none"}, ["propose", "refine"], ["propose"]),
        ({"run": {"modes": ["unprompted"]}}, ["propose", "refine"], ["propose"]),
        ({"run": {"modes": ["gt_sam"]}}, ["propose", "refine"], ["propose", "refine"]),
    ],
)
def test_a_stage_that_a_job_does_not_need_loads_no_model(module, changes, stages, models):
    given = {
        role: value
        if isinstance(value, dict)
        else {"model": value if value == "none" else f"{module}:{value}"}
        for role, value in changes.items()
    }
    config = config_of(**given)
    assert list(stages_of(config)) == stages
    assert stages_with_models(config) == models


def test_an_embedding_is_shared_within_a_family_only(module):
    mine, refiner = own(module, "Proposer"), own(module, "Refiner")
    assert registry.shares_embedding(config_of(propose=mine, refine=refiner))
    assert not registry.shares_embedding(config_of(propose=mine))
    assert not registry.shares_embedding(config_of(refine=refiner))
    assert not registry.shares_embedding(config_of(refine={"sam": {"model": "bundled"}}))
    with pytest.raises(ModelError, match="takes the embedding 'mine' of a proposer"):
        load_refiner(config_of(refine=refiner))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sma", r"propose.model 'sma' is not known; did you mean sam\? Name your own model as"),
        ("no_such_module:x", "no_such_module cannot be imported .* or put its folder on PYTHON"),
        ("json:nothing", "json has no class or function nothing"),
        ("MODULE:number", "has no class or function number"),
    ],
)
def test_a_family_that_does_not_exist_is_one_line(module, name, message):
    with pytest.raises(ConfigError, match=message):
        identify(config_of(propose={"model": name.replace("MODULE", module)}))


def test_a_factory_that_raises_is_one_line(module):
    config = config_of(
        propose=own(module, "Proposer"), refine=own(module, "Refiner", options={"broken": True})
    )
    with pytest.raises(ModelError, match=r"cannot be built: OSError: no such device$"):
        load_refiner(config)


def test_a_factory_gets_options_and_verified_weights(module, tmp_path):
    (tmp_path / "net.bin").write_bytes(b"net")
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.json").write_text("{}")
    weights = {"net": str(tmp_path / "net.bin"), "all": str(folder)}
    config = config_of(
        propose=own(module, "Proposer", options={"level": 3}, weights=weights),
        refine={"model": "none"},
    )
    known = identify(config)
    assert set(known) == {"clip", "propose.net", "propose.all"}
    assert known["propose.net"] == hashlib.sha256(b"net").hexdigest()
    pinned = pin(config, known)
    context = load_proposer(pinned).model.context
    assert context.options == {"level": 3}
    assert context.weights == {"net": tmp_path / "net.bin", "all": folder}
    assert context.device.type == "cpu"
    (folder / "sub" / "a.json").write_text("[]")
    with pytest.raises(WeightsError, match="expected"):
        load_proposer(pinned)


def test_signatures_of_weights_stay_out_of_the_recipe(module):
    signed = {"net": "https://host/net.bin?X-Amz-Signature=secret"}
    config = config_of(propose=own(module, "Proposer", weights=signed))
    assert "secret" not in str(config.recipe())
    assert config.propose.weights["net"].uri.endswith("secret")


def test_options_without_their_model_are_refused():
    with pytest.raises(ConfigError, match="options would be ignored, because model is sam"):
        config_of(propose={"options": {"level": 3}})
    with pytest.raises(ConfigError, match="need model: sam"):
        config_of(refine={"model": "none", "box_jitter": 2})


def test_the_task_check_is_for_the_bundled_clip_only(module):
    from salip_ray.models.task_check import untaught_classes

    task = {"task": {"name": "t", "prompts": {"kidney": ["a kidney"]}}}
    labeller = {"propose": own(module, "Labeller")}
    assert untaught_classes(load_config(task)) == ("kidney",)
    assert untaught_classes(load_config(task, overrides=labeller)) == ()
