"""Help texts of every command and option, and shell completion."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from tests.conftest import ROOT
from tests.unit.cli.command_tree import all_commands, examples, parse

COMMANDS = all_commands()
OPTIONS = [
    pytest.param(option, id=f"{name} {option.opts[0]}")
    for name, command in COMMANDS.items()
    for option in command.params
]


def test_every_known_command_is_visited():
    expected = {"label", "export", "export coco", "export dicom-seg", "weights fetch", "config"}
    assert expected <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_subcommand_and_option(name):
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    command = COMMANDS[name]
    listed = [*getattr(command, "commands", ()), *(param.opts[0] for param in command.params)]
    for item in listed:
        assert item in done.output, item


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole_sentences(name):
    text = inspect.cleandoc(COMMANDS[name].help)
    summary = text.partition("\n\n")[0]
    assert summary.endswith(".")
    assert summary[0].isupper()
    assert not text.rstrip().endswith(":")
    # An example stands on the line of its heading.
    assert not [line for line in text.splitlines() if line.rstrip().endswith("Example:")]


@pytest.mark.parametrize("name", [name for name in COMMANDS if examples(COMMANDS[name])])
def test_example_parses_and_is_of_its_own_command(name):
    for words in examples(COMMANDS[name]):
        parse(words)
        assert " ".join(words[1:]).startswith(name)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_help_that_says_if_it_can_be_repeated(option):
    assert option.help
    assert option.help.endswith("."), option.help
    assert ("Can be repeated." in option.help) == bool(getattr(option, "multiple", False))


def test_help_loads_neither_torch_nor_ray():
    code = (
        "import sys; from salip_ray.cli import app\n"
        "try: app(['label', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'cv2', 'pydicom', 'nibabel'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------------------------- completion


def completed(line: str) -> list[str]:
    """Return what bash would offer at the end of a command line."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_SALIP_RAY_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "from salip_ray.cli import app; app(prog_name='salip-ray')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("salip-ray la", {"label"}),
        ("salip-ray label in out --ext", {"--extend"}),
        ("salip-ray label in out --config lu", {"lungs", "lungs_ct"}),
        ("salip-ray label in out --config lungs --preset paper-2", {"paper-2d"}),
        ("salip-ray label in out --mode gt", {"gt_sam"}),
        ("salip-ray export co", {"coco"}),
        ("salip-ray config brai", {"brain"}),
    ],
)
def test_commands_options_and_values_are_completed(line, offered):
    assert set(completed(line)) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(shell):
    environment = {**os.environ, "_SALIP_RAY_COMPLETE": f"source_{shell}"}
    code = "from salip_ray.cli import app; app(prog_name='salip-ray')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert "_SALIP_RAY_COMPLETE" in done.stdout
    assert "salip-ray" in done.stdout


def test_top_level_help_offers_to_install_completion():
    output = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "--install-completion" in output
    assert "--show-completion" in output


def test_help_of_preset_names_every_preset():
    (option,) = (p for p in COMMANDS["label"].params if p.name == "preset")
    presets = sorted(path.stem for path in (ROOT / "configs" / "presets").glob("*.yaml"))
    assert not [name for name in presets if name not in option.help]
