"""Which implementation runs for each device and dtype, and if not the compiled one, why."""

import torch

from detector.ops import _load

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def implementation_table() -> list[dict[str, str]]:
    """One row for each operator, device and dtype.

    Returns:
        Rows with the keys op, device, dtype, implementation ("compiled" or "torch") and reason (empty
        for compiled ones).
    """
    devices = ["cpu", "cuda"]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    return [
        _row(op, device, dtype) for op in _load.KERNELS for device in devices for dtype in _DTYPES
    ]


def _row(op: str, device: str, dtype: torch.dtype) -> dict[str, str]:
    reason = _load.explain_fallback(op, device, dtype)
    return {
        "op": op,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "implementation": "torch" if reason else "compiled",
        "reason": reason,
    }
