"""Merging of presets, task files and --set into one Config, and default distractors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salip_ray.config import load_config, shipped_configs, shipped_tasks
from salip_ray.config.assignments import parse_options
from salip_ray.errors import ConfigError
from salip_ray.models.task_check import require_taught_classes

TASK = {"task": {"name": "t", "prompts": {"lungs": ["two dark lungs"], "heart": ["a heart"]}}}


def task(**fields):
    return {"task": {**TASK["task"], **fields}}


def test_preset_sets_models_and_task_wins_over_preset():
    config = load_config(
        {**TASK, "propose": {"points_per_side": 7}}, overrides=["propose.crop_n_layers=1"]
    )
    assert config.sam.model == "bundled"
    assert config.image.long_side == 256  # the bundled preset's, not the built-in 1024
    assert config.propose.points_per_side == 7
    assert config.propose.crop_n_layers == 1


def test_set_wins_over_task():
    config = load_config(
        {**TASK, "propose": {"points_per_side": 7}}, overrides=["propose.points_per_side=9"]
    )
    assert config.propose.points_per_side == 9


def test_classes_are_numbered_in_file_order_each_with_its_k():
    first, second = load_config(task(top_k={"lungs": 2})).task.classes
    assert (first.label, first.class_id, first.top_k) == ("lungs", 1, 2)
    assert (second.label, second.class_id, second.top_k) == ("heart", 2, 1)


def test_salip_prompt_file_is_read_relative_to_the_task(tmp_path: Path):
    (tmp_path / "prompts.json").write_text(json.dumps({"brain": ["grey", "round"], "eye": "ball"}))
    (tmp_path / "mine.yaml").write_text("task: {name: mine, prompts: prompts.json}")
    config = load_config(tmp_path / "mine.yaml")
    assert config.task.prompts == {"brain": ("grey", "round"), "eye": ("ball",)}


def test_distractors_are_read_like_prompts(tmp_path: Path):
    (tmp_path / "known.json").write_text(json.dumps({"lungs": "air", "rib": ["an arc"]}))
    (tmp_path / "mine.yaml").write_text(
        "task: {name: mine, prompts: {lungs: [dark]}, distractors: known.json}"
    )
    task = load_config(tmp_path / "mine.yaml").task
    assert task.distractors == {"lungs": ("air",), "rib": ("an arc",)}
    assert [spec.label for spec in task.competitors] == ["rib"]


def test_prompts_of_a_later_layer_replace_earlier_ones():
    config = load_config(TASK, overrides={"task": {"prompts": {"liver": ["a liver"]}}})
    assert list(config.task.prompts) == ["liver"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.5, (1000.0, 5000.0)), (50, 4000, (50, 4000)), (0.0, 1.0, (0.0, float("inf")))],
)
def test_area_limit_up_to_one_is_a_fraction_and_above_pixels(low, high, expected):
    config = load_config(task(min_area=low, max_area=high))
    assert config.task.area_limits(100, 100) == pytest.approx(expected)


@pytest.mark.parametrize("assignment", ["propose.points_per_side", "=3", "a.b=[1"])
def test_malformed_set_is_refused(assignment):
    with pytest.raises(ConfigError, match="--set"):
        load_config(TASK, overrides=[assignment])


def test_unknown_name_lists_the_shipped_ones(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no task named 'lungz': did you mean lungs\?"):
        load_config("lungz")
    with pytest.raises(ConfigError, match=r"brain, .*fetal_head, .*lungs, "):
        load_config("foot")
    with pytest.raises(ConfigError, match="one of: bundled, medsam-biomedclip, paper-2d"):
        load_config(TASK, preset="huge")
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "no.yaml")


def test_secrets_are_in_no_message_and_no_repr():
    config = load_config({**TASK, "storage": {"input": {"secret": "hunter2"}}})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in json.dumps(config.recipe())
    with pytest.raises(ConfigError) as caught:
        load_config({**TASK, "storage": {"input": "hunter2"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "shown"),
    [
        ("storage.weights.secret=%hunter2/+key", "'storage.weights.secret': the value is not"),
        (" storage.weights.secret=[hunter2", "'storage.weights.secret': the value is not"),
        ("storage={weights: {secret: %hunter2}}", "'storage': the value is not"),
        ("storage.weights.secret:hunter2", "'storage' must look like"),
    ],
)
def test_malformed_storage_option_shows_no_value(assignment, shown):
    with pytest.raises(ConfigError, match=f"--set {shown}") as caught:
        load_config(TASK, overrides=[assignment])
    assert "hunter2" not in str(caught.value)


def test_malformed_file_is_named_by_line_without_its_text(tmp_path: Path):
    path = tmp_path / "task.yaml"
    path.write_text("storage:\n  input:\n    secret: %hunter2\n")
    with pytest.raises(
        ConfigError, match=r"task\.yaml is not valid YAML: .* \(line 3\)$"
    ) as caught:
        load_config(path)
    assert "hunter2" not in str(caught.value)


def test_storage_options_are_taken_as_text():
    given = ["key=012345", "secret=abc #d=e", "token=@x: y", "anon=true", "n=42", "a.b=https://h"]
    assert parse_options("output", given) == {
        "key": "012345",
        "secret": "abc #d=e",
        "token": "@x: y",
        "anon": True,
        "n": 42,
        "a": {"b": "https://h"},
    }
    assert parse_options("input", ['c={"a": [1, no-yaml-trouble]}'])["c"]["a"][0] == 1
    for bad in ("s3cret", "=s3cret", "kw={s3cret: [}"):
        with pytest.raises(ConfigError, match="--input-option") as caught:
            parse_options("input", [bad])
        assert "s3cret" not in str(caught.value)


def test_recipe_holds_no_signature_of_weights():
    signed = "https://h/sam.pth?X-Amz-Signature=s3cret&versionId=7"
    config = load_config(
        "lungs",
        overrides={
            "sam": {"model": "vit_b", "checkpoint": signed},
            "clip": {"model": "ViT-B-32", "pretrained": "https://user:s3cret@h/clip.pt"},
            "refine": {"sam": {"model": "vit_b", "checkpoint": "weights/other.pth"}},
        },
    )
    recipe = config.recipe()
    assert "s3cret" not in str(recipe)
    assert recipe["sam"]["checkpoint"] == "https://h/sam.pth?versionId=7"
    assert recipe["refine"]["sam"]["checkpoint"] == "weights/other.pth"
    assert config.sam.checkpoint == signed  # the fetch needs the signature


def test_recipe_holds_only_settings_that_decide_labels():
    base = load_config(TASK).recipe()
    for same in ("pools.propose.size=3", "storage.input={anon: true}", "run.max_error_share=0.5"):
        assert load_config(TASK, overrides=[same]).recipe() == base
    for other in ("task.max_area=0.3", "propose.points_per_side=3", "run.modes=[unprompted]"):
        assert load_config(TASK, overrides=[other]).recipe() != base


def test_recipe_leaves_out_later_options_at_their_defaults():
    recipe = load_config(TASK).recipe()
    assert "box_end" not in recipe["retrieve"]
    assert "aspect" not in recipe["image"]
    changed = load_config(TASK, overrides=["retrieve.box_end=exclusive"]).recipe()
    assert changed["retrieve"]["box_end"] == "exclusive"
    del changed["retrieve"]["box_end"]
    assert changed == recipe


def test_area_limits_of_propose_precede_those_of_the_task():
    config = load_config(TASK, overrides=["propose.min_area=0", "propose.max_area=50000"])
    assert config.area_limits(256, 256) == (0, 50_000)
    assert load_config(TASK).area_limits(256, 256) == config.task.area_limits(256, 256)


@pytest.mark.parametrize("name", sorted(p.stem for p in shipped_configs().glob("*.yaml")))
@pytest.mark.parametrize("preset", ["bundled", "paper-2d", "paper-3d", "salip-2d", "salip-3d"])
def test_every_shipped_task_loads_with_every_preset(name, preset):
    config = load_config(name, preset=preset)
    assert config.task.classes
    assert load_config(f"configs/{name}.yaml", preset=preset) == config


def test_every_shipped_task_is_listed_and_names_what_it_shows():
    tasks = shipped_tasks()
    assert {task.name for task in tasks} == {p.stem for p in shipped_configs().glob("*.yaml")}
    for task in tasks:
        assert task.image
        assert task.modality


@pytest.mark.parametrize("task", shipped_tasks(), ids=lambda task: task.name)
def test_shipped_task_uses_the_bundled_clip_only_if_it_was_taught(task):
    config = load_config(task.name)
    require_taught_classes(config)
    assert (config.clip.model == "bundled") == (task.preset is None)
    assert config.task.competitors


def test_about_is_no_setting_of_a_job(tmp_path):
    text = (shipped_configs() / "lungs.yaml").read_text().partition("\n")[2]
    for name in ("anatomy.json", "lungs.json"):
        text = text.replace(f"prompts/{name}", str(shipped_configs() / "prompts" / name))
    (tmp_path / "mine.yaml").write_text(text)
    assert load_config(tmp_path / "mine.yaml") == load_config("lungs")


# --------------------------------------------------------------------------- default distractors


def test_task_without_distractors_gets_all_other_taught_classes():
    task = load_config(TASK).task
    labels = [spec.label for spec in task.competitors]
    assert {"rib", "brain", "fetal head", "lung union"} <= set(labels)
    assert not {"lungs", "heart"} & set(labels)
    # Distractors of the same kind of image speak for the class being there.
    assert "rib" in task.companions["lungs"]
    assert "brain" not in task.companions["lungs"]


def test_class_by_another_name_does_not_compete_with_itself():
    task = load_config({"task": {"name": "t", "prompts": {"left_lung": ["the left lung"]}}}).task
    assert "lungs" not in [spec.label for spec in task.competitors]


@pytest.mark.parametrize("fields", [{"distractors": {}}, {"distractors": {"rib": ["a rib"]}}])
def test_distractors_of_a_task_are_left_alone(fields):
    assert load_config(task(**fields)).task.distractors.keys() == fields["distractors"].keys()


@pytest.mark.parametrize(
    "override", ["retrieve.scoring=cosine", "clip={model: ViT-B-32, pretrained: openai}"]
)
def test_defaults_are_only_for_the_bundled_clip_with_softmax(override):
    assert load_config(TASK, overrides=[override]).task.distractors == {}


def test_shipped_tasks_and_recipes_of_outputs_are_not_changed_by_defaults():
    config = load_config("lungs")
    prompts = json.loads((shipped_configs() / "prompts" / "anatomy.json").read_text())
    assert config.task.distractors.keys() == prompts.keys()
    recipe = load_config(task(distractors={})).recipe()
    assert load_config(recipe).task.distractors == {}


# ----------------------------------------------------------------------------- presence, recipe


@pytest.mark.parametrize(
    "fields",
    [{"distractors": {}}, {"distractors": {"rib": ["a rib"]}, "companions": {"lungs": ["rib"]}}],
)
def test_min_presence_without_anything_to_compare_with_is_refused(fields):
    data = {"task": {"name": "t", "prompts": {"lungs": ["two dark lungs"]}, **fields}}
    with pytest.raises(ConfigError, match=r"min_presence 0\.5 cannot work.*task\.distractors"):
        load_config(data, overrides=["retrieve.min_presence=0.5"])


def test_min_presence_works_with_a_second_class_or_a_distractor():
    load_config(task(distractors={}), overrides=["retrieve.min_presence=0.5"])
    one = {"name": "t", "prompts": {"lungs": ["two dark lungs"]}}
    load_config({"task": one}, overrides=["retrieve.min_presence=0.5"])


def test_recipe_of_a_default_configuration_has_no_new_fields():
    # An output that an earlier version started has to compare equal.
    assert set(load_config(TASK).recipe()["clip"]) == {"model", "pretrained", "sha256"}
    forced = load_config(TASK, overrides=["clip.allow_untaught=true"]).recipe()
    assert forced["clip"]["allow_untaught"] is True


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sam.checkpoint=s3://b/sam.pth", "checkpoint would be ignored"),
        ("clip.pretrained=openai", "pretrained would be ignored"),
        ("refine.sam={model: bundled, checkpoint: x.pth}", "checkpoint would be ignored"),
    ],
)
def test_weights_that_the_bundled_model_would_ignore_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TASK, overrides=[override])


BILLION = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BILLION, "its aliases stand for more than 100,000 values"),
        ("task: &a [*a]\n", "its aliases stand for more than 100,000 values"),
        ("task: " + "[" * 5000 + "]" * 5000, "it is nested too deeply"),
    ],
)
def test_file_that_would_fill_the_memory_is_refused(tmp_path, text, problem):
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"task.yaml is not valid YAML: {problem}$"):
        load_config(tmp_path / "task.yaml")


def test_aliases_are_allowed(tmp_path):
    text = "task: {name: t, prompts: {a: &s [an organ], b: *s}, distractors: {c: *s}}\n"
    (tmp_path / "task.yaml").write_text(text)
    assert [spec.label for spec in load_config(tmp_path / "task.yaml").task.classes] == ["a", "b"]
