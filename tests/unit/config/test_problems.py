"""Messages about a wrong configuration: field, value, remedy, and the file or option to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from salip_ray.config import Config, load_config
from salip_ray.errors import ConfigError

TASK = {"task": {"name": "t", "prompts": {"lungs": ["two dark lungs"], "heart": ["a heart"]}}}


def task(**fields):
    return {"task": {**TASK["task"], **fields}}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (task(topk=2), "unknown key task.topk; did you mean top_k?"),
        ({**TASK, "propose": {"zzz": 1}}, "known keys: box_nms_thresh"),
        (task(prompts={"lungs": []}), "class 'lungs' has no sentences"),
        (task(prompts={}), "task.prompts"),
        (task(top_k={"liver": 1}), "top_k names ['liver'], but the classes are"),
        (task(top_k=0), "task.top_k: must be above 0, found 0"),
        (task(top_k="many"), "task.top_k: must be a whole number, found 'many'"),
        (task(top_k="all"), "is all, which needs retrieve.min_score"),
        (task(min_area=0.5, max_area=0.1), "min_area 0.5 is not below max_area 0.1"),
        ({"task": {"prompts": {"a": ["b"]}}}, "task.name is missing"),
        ({**TASK, "sam": {"model": "vit_b", "checkpoint": None}}, "sam.checkpoint is missing"),
        ({**TASK, "sam": {"model": "vit_x"}}, "'vit_t' or 'sam_med2d', found 'vit_x'"),
        ({**TASK, "propose": {"box_nms_thresh": 1.5}}, "propose.box_nms_thresh"),
        ({**TASK, "run": {"modes": ["cascade", "cascade"]}}, "modes must be distinct"),
        ({**TASK, "pools": {"refine": {"size": 2, "max_size": 3}}}, "not both"),
        (task(distractors={"rib": []}), "class 'rib' has no sentences"),
        (task(companions={"liver": ["rib"]}), "companions names 'liver', but the classes are"),
        (
            task(distractors={"eye": ["an eye"]}, companions={"heart": ["rib"]}),
            "names ['rib'], which task.distractors lacks",
        ),
        (task(distractors="missing.json"), "task.distractors names"),
        (
            {**TASK, "retrieve": {"min_presence": 0.5, "scoring": "cosine"}},
            "needs scoring: softmax, found cosine",
        ),
        ({**TASK, "retrieve": {"ensemble": ["crops"]}}, "and not visual_prompt (crops)"),
        (task(prompts="missing.json"), "missing.json, which does not exist"),
    ],
)
def test_mistake_is_one_line_with_field_value_and_remedy(data, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(data)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


# ------------------------------------------------------------------------ nothing of pydantic's


def fields_of(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every field of the configuration."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields_of(kind, (*at, name))
        yield (*at, name)


@pytest.mark.parametrize("value", ["{a: {b: 1}}", "-7.5", "[[]]", "null", "'\\n'", "[1, 2, 3]"])
def test_no_value_gives_a_message_in_pydantics_words(value):
    models = ["sam.model=vit_b", "sam.checkpoint=x"]
    for path in fields_of(Config):
        try:
            load_config(TASK, overrides=[*models, f"{'.'.join(path)}={value}"])
        except ConfigError as error:
            message = str(error)
            for words in ("nput should", "valid tuple", "pydantic", "type=", "is not valid"):
                assert words not in message, message
            assert "\n" not in message
            assert message.startswith(("--set: ", "the task mapping: ")), message


# ------------------------------------------------------------------------------ what is blamed


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **kwargs)
    return str(caught.value)


def test_typo_in_set_blames_set():
    message = refusal("lungs", overrides=["propose.points_per_sid=3"])
    expected = "--set: unknown key propose.points_per_sid; did you mean points_per_side?"
    assert message == expected


def test_value_of_set_blames_set_and_not_the_task_that_sets_it_too():
    message = refusal("lungs", overrides=["task.top_k=0"])
    assert message == "--set: task.top_k: must be above 0, found 0"


def test_typo_in_a_preset_blames_the_preset(tmp_path: Path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("propose: {points_per_sid: 3}\n")
    assert refusal("lungs", preset=preset).startswith(f"{preset}: unknown key")


def test_typo_in_a_task_blames_the_task(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: {name: t, promts: {lungs: [dark]}}\n")
    assert refusal(path).startswith(f"{path}: ")


def test_wrong_sentences_in_a_prompt_file_blame_that_file(tmp_path: Path):
    (tmp_path / "prompts.json").write_text('{"lungs": [1]}')
    path = tmp_path / "mine.yaml"
    path.write_text("task: {name: t, prompts: prompts.json}\n")
    message = refusal(path)
    assert (
        message == f"{tmp_path / 'prompts.json'}: the sentences of 'lungs' must be a list of text"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"lungs": \n ["dark",}', "is not valid JSON (line 2, column"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[]", "must map each class to its sentences, found a list"),
    ],
)
def test_malformed_prompt_file_is_named(tmp_path: Path, content: bytes, expected: str):
    path = tmp_path / "prompts.json"
    path.write_bytes(content)
    assert refusal(task(prompts=str(path))).startswith(f"{path} {expected}")


def test_unreadable_task_file_is_named(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff")
    assert refusal(path) == f"{path} is not UTF-8 text"


def test_preset_that_is_no_name_blames_the_task(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: [bundled]\ntask: {name: t, prompts: {lungs: [dark]}}\n")
    assert refusal(path) == f"{path}: preset must be a name or path, found ['bundled']"


def test_the_branch_of_a_union_that_was_meant_is_explained():
    message = refusal(TASK, overrides=["image.window={center: 40}"])
    assert message == "--set: image.window.width is missing"
