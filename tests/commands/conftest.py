import sys

import pytest

from detector.commands import cli
from tests.commands.running import load_command


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    """tool("train", "--cfg", ...) -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, words)])
        status = 0
        try:
            cli.run(load_command(name).main)
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
