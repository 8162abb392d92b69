"""The benchmark of the start counts the CPU time of all processes below it."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.startup import _ROOT, cpu_of_children, imported, name_of, show

_BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
_CHILD = f"""
import subprocess, sys
{_BUSY}
grandchild = subprocess.Popen(
    [sys.executable, "-c", {_BUSY!r} + "print('busy', flush=True); input()"], stdin=sys.stdin
)
grandchild.wait()
"""


def test_processes_below_a_process_are_counted_with_their_own_children():
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "busy\n"
        spent = cpu_of_children(os.getpid())
        assert spent[process.pid] >= 0.25
        assert name_of(process.pid).startswith("python")
        assert len([pid for pid, seconds in spent.items() if seconds >= 0.25]) >= 2
    finally:
        process.communicate("\n")
    assert process.pid not in cpu_of_children(os.getpid())


def test_imports_are_summed_by_package():
    text = imported(_ROOT, "json.tool, xml.dom.minidom")
    assert float(text.split()[0]) > 0
    assert "json" in text or "xml" in text


def test_imports_at_the_end_of_the_interpreter_are_no_error(tmp_path):
    late = "import atexit\natexit.register(lambda: __import__('json.tool'))\n"
    (tmp_path / "late.py").write_text(late)
    assert float(imported(tmp_path, "late").split()[0]) > 0


def test_steps_are_shown_with_their_range(capsys):
    show("job", [{"whole": 2.0}, {"whole": 4.0}, {"whole": 3.0}])
    assert "3.00 (2.00 to 4.00)" in capsys.readouterr().out
