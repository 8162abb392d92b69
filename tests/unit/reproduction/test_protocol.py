"""Weights, sentences, search space and settings of a reproduction."""

from __future__ import annotations

import json

import pytest

from salip_ray.errors import ConfigError, InputError, WeightsError
from salip_ray.reproduction.protocol import (
    BUNDLED,
    DRAWS,
    PROTOCOLS,
    make_settings,
    required_files,
)

DATASETS = sorted(PROTOCOLS)


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"Organ": ["one sentence", "another"]}))
    return file


@pytest.mark.parametrize("dataset", DATASETS)
def test_missing_weights_are_listed_with_source_and_digest(tmp_path, prompts, dataset):
    protocol = PROTOCOLS[dataset]
    sam, clip = required_files(protocol)
    with pytest.raises(WeightsError, match="--weights is missing") as problem:
        make_settings(protocol, None, prompts, seed=0)
    for file in (sam, clip):
        assert f"{file.name}  sha256 {file.sha256}" in str(problem.value)
        assert file.url in str(problem.value)
    (tmp_path / sam.name).touch()
    with pytest.raises(WeightsError, match=f"{tmp_path} lacks weights") as problem:
        make_settings(protocol, str(tmp_path), prompts, seed=0)
    assert clip.name in str(problem.value)
    assert sam.name not in str(problem.value)


@pytest.mark.parametrize("dataset", DATASETS)
def test_weights_are_pinned_to_their_published_digests(tmp_path, prompts, dataset):
    sam, clip = required_files(PROTOCOLS[dataset])
    for file in (sam, clip):
        (tmp_path / file.name).touch()
    settings = make_settings(PROTOCOLS[dataset], str(tmp_path), prompts, seed=0)
    for config in (settings.published, settings.ours):
        assert (config.sam.model, config.sam.sha256) == ("vit_h", sam.sha256)
        assert config.sam.checkpoint == str(tmp_path / sam.name)
        assert config.clip.pretrained == str(tmp_path / clip.name)
        assert config.clip.sha256 == clip.sha256
        assert config.clip.model.endswith("-quickgelu")


def test_both_runs_have_the_sentences_and_each_its_conventions(prompts):
    settings = make_settings(PROTOCOLS["lungs"], BUNDLED, prompts, seed=0)
    for config in (settings.published, settings.ours):
        assert config.task.prompts == {"Organ": ("one sentence", "another")}
        assert config.task.top_k == 2
        assert config.run.modes == ("cascade", "unprompted", "gt_sam")
    published = settings.published
    assert (published.image.channels, published.image.aspect) == ("bgr", "square")
    assert (published.propose.min_area, published.retrieve.box_end) == (0, "exclusive")
    assert (settings.ours.image.channels, settings.ours.image.aspect) == ("rgb", "keep")


def test_only_x_rays_are_bgr_and_only_brains_are_sagittal(prompts):
    made = {name: make_settings(PROTOCOLS[name], BUNDLED, prompts, seed=0) for name in DATASETS}
    assert {name: each.published.image.channels for name, each in made.items()} == {
        "lungs": "bgr",
        "fetal-head": "rgb",
        "brain": "rgb",
    }
    for each in (made["brain"].published, made["brain"].ours):
        assert each.image.axis == "sagittal"
    assert made["brain"].published.image.depth == "slice_range"
    assert made["brain"].published.task.top_k == 1


@pytest.mark.parametrize("dataset", DATASETS)
def test_draws_are_seeded_and_from_the_published_space(prompts, dataset):
    protocol = PROTOCOLS[dataset]
    draws = make_settings(protocol, BUNDLED, prompts, seed=3).draws
    assert len(draws) == DRAWS
    for draw in draws:
        assert draw.changes.keys() == protocol.space.keys()
        for field, value in draw.changes.items():
            assert value in protocol.space[field]
            section, _, name = field.partition(".")
            assert getattr(getattr(draw.config, section), name) == value
    changes = [draw.changes for draw in draws]
    again, other = (make_settings(protocol, BUNDLED, prompts, seed=s).draws for s in (3, 4))
    assert changes == [draw.changes for draw in again]
    assert changes != [draw.changes for draw in other]


def test_settings_of_the_job_can_be_changed_and_models_cannot(prompts):
    changed = make_settings(
        PROTOCOLS["brain"], BUNDLED, prompts, seed=0, assignments=["run.rows_per_shard=7"]
    )
    assert changed.ours.run.rows_per_shard == changed.draws[0].config.run.rows_per_shard == 7
    with pytest.raises(ConfigError, match="sam cannot be changed"):
        make_settings(PROTOCOLS["brain"], BUNDLED, prompts, seed=0, assignments=["sam.model=vit_b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ('{"a": ["x"], "b": ["y"]}', "must map one class"),
        ("[]", "must map one class"),
    ],
)
def test_wrong_prompts_are_refused_with_their_source(tmp_path, content, message):
    file = tmp_path / "lungs.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message) as problem:
        make_settings(PROTOCOLS["lungs"], BUNDLED, file, seed=0)
    assert "clip_prompts/lungs.json of github.com/aleemsidra/SaLIP" in str(problem.value)


def test_missing_prompts_are_refused_with_their_source():
    with pytest.raises(InputError, match=r"--prompts is missing: .*clip_prompts/brain_seg\.json"):
        make_settings(PROTOCOLS["brain"], BUNDLED, None, seed=0)
