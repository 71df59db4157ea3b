import subprocess
import sys
import textwrap

import pytest

from detector.device import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux's page faults")
def test_freed_memory_is_kept_for_the_next_tensor():
    """By the pages that Linux hands out; in a process of its own, since malloc cannot be set back."""
    program = """
        import resource, torch
        from detector.device import keep_freed_memory

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
