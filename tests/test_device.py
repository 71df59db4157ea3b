import mmap
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from detector.device import Hardware, keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux's page faults")
def test_freed_memory_is_kept_for_the_next_tensor():
    """By the pages that Linux hands out; in a process of its own, since malloc cannot be set back."""
    program = """
        import resource, torch
        from detector.device import Hardware, keep_freed_memory

        torch.set_num_threads(1)

        def use(times):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(times):
                torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
            return faults * resource.getpagesize() / (times * (64 << 20))

        print(use(12))
        if not keep_freed_memory():
            raise SystemExit(3)
        use(12)  # until malloc has found its place
        print(use(12))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    if done.returncode == 3:
        pytest.skip("not glibc")
    assert done.returncode == 0, done.stderr
    fresh, kept = map(float, done.stdout.split())  # pages handed out / pages of the tensors
    assert fresh >= 0.5
    assert kept < 0.5


def test_other_platforms_go_without(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def use_memory(size):
    """Uses `size` new bytes and frees them: malloc might take some that this process has already."""
    with mmap.mmap(-1, size) as memory:
        for start in range(0, size, mmap.PAGESIZE):
            memory[start] = 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux's /proc")
def test_the_peak_of_a_run_is_not_that_of_what_ran_before():
    """Neither of an earlier run in this process, nor of the process that started it."""
    hardware = Hardware.choose("cpu", "fp32", channels_last=False)
    use_memory(300 << 20)
    before = hardware.peak_memory()
    hardware.reset_peak_memory()
    after = hardware.peak_memory()
    if after == before:
        pytest.skip("/proc/self/clear_refs may not be written here")
    assert before - after > 200 << 20
    use_memory(100 << 20)
    assert 90 << 20 < hardware.peak_memory() - after < 150 << 20
    program = """
        from pathlib import Path
        from unittest import mock
        import sys
        sys.modules["torch"] = mock.MagicMock()  # its import takes seconds
        sys.path.insert(0, sys.argv[1])
        from detector.device import Hardware
        print(Hardware.peak_memory(mock.Mock(device=mock.Mock(type="cpu"))))
    """
    block = np.ones(300 << 20, np.uint8)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < int(done.stdout) < len(block)
