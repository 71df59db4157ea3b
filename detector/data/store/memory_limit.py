"""How much memory is free for this process, on this machine or in this container."""

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that can be taken without pushing anything out; 0 where nothing is known."""
    found = [left for left in (_of_the_machine(), *_of_the_groups()) if left is not None]
    return max(min(found, default=0), 0)


def _of_the_machine() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        pages = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        known = [name for name in pages if name in getattr(os, "sysconf_names", {})]
        return os.sysconf(known[0]) * os.sysconf("SC_PAGE_SIZE") if known else None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _of_the_groups() -> list[int]:
    """What each control group that this process is in, of a container or a job, has left."""
    left = []
    for folder in _groups():
        version2 = folder / "memory.max"
        names = ("memory.max", "memory.current") if version2.exists() else V1
        try:
            limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in names)
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        if limit != "max":
            pages = stat.get("total_inactive_file", stat.get("inactive_file", "0"))
            left.append(int(limit) - int(used) + int(pages))  # pages of files are given back
    return left


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _groups() -> list[Path]:
    """The folders of this process's groups, and those they lie in."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = GROUPS / kinds
        folder = top / name.lstrip("/")
        found += [each for each in (folder, *folder.parents) if each.is_relative_to(top)]
    return found
