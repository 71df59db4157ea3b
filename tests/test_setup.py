"""How setup.py builds the kernels; that they compile, every other test shows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"
COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo 1.0; exit; }
echo built >> calls
for word; do [ "$last" = -o ] && echo library > "$word"; last=$word; done
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the compiler is a shell script")
def test_what_has_not_changed_is_not_compiled_again(tmp_path):
    shutil.copy(SETUP, tmp_path)
    package, compiler = tmp_path / "detector" / "ops", tmp_path / "compiler"
    package.mkdir(parents=True)
    (tmp_path / "csrc").mkdir()
    source, library = tmp_path / "csrc" / "one.cpp", package / "_C_cpu.so"
    source.write_text("int one;")
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)

    def count_calls():
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        variables = {**os.environ, "CXX": str(compiler), "DETECTOR_CUDA": "0"}
        subprocess.run(command, cwd=tmp_path, env=variables, check=True, capture_output=True)
        assert library.read_text() == "library\n"
        return len((tmp_path / "calls").read_text().splitlines())

    assert [count_calls(), count_calls()] == [1, 1]
    source.write_text("int two;")
    assert [count_calls(), count_calls()] == [2, 2]
    library.write_text("cut")
    assert count_calls() == 3
