"""How this process deals with memory that it frees."""

import ctypes
import sys


def keep_freed_memory() -> bool:
    """Lets this process keep memory that it frees, for the next tensors, as torch does on GPUs.

    glibc gives every large block back to Linux, which then hands out the next one page by page: on a CPU
    that takes longer than the arithmetic on it. The process's size stays at what it needed most, and
    gaps between tensors of many sizes come on top.

    Returns:
        Whether the C library could be told; only glibc can.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))  # -1: never
