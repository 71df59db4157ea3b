"""How much memory this process can still allocate, on this machine or in this container."""

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def free_memory() -> int:
    """Bytes that can be allocated without swapping; 0 if unknown."""
    limits = [limit for limit in (_read_machine(), *_read_control_groups()) if limit is not None]
    return max(min(limits, default=0), 0)


def _read_machine() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        pages = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        known = [name for name in pages if name in getattr(os, "sysconf_names", {})]
        return os.sysconf(known[0]) * os.sysconf("SC_PAGE_SIZE") if known else None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _read_control_groups() -> list[int]:
    """Free memory of each control group (container, job) that this process is in, bytes."""
    free = []
    for folder in _control_groups():
        version2 = folder / "memory.max"
        names = ("memory.max", "memory.current") if version2.exists() else V1_FILES
        try:
            limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in names)
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        if limit != "max":
            pages = stat.get("total_inactive_file", stat.get("inactive_file", "0"))
            free.append(int(limit) - int(used) + int(pages))  # the page cache can be reclaimed
    return free


def _control_groups() -> list[Path]:
    """The folders of this process's control groups and of their parents."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = GROUPS / kinds
        folder = top / name.lstrip("/")
        groups += [each for each in (folder, *folder.parents) if each.is_relative_to(top)]
    return groups
