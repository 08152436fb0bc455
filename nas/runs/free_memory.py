"""Free memory, and the advice if it does not suffice. No torch: the command line imports it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["ADVICE", "available_memory", "is_out_of_memory", "left_in_container"]

ADVICE = (
    "use a smaller crop (--loader.augment.crop) or batch (--loader.batch-size, with --accumulate for updates as from a "
    "larger one), --precision bfloat16, a smaller space or network, or in a search --supernet.recompute node or "
    "--partial-channels"
)


SHORTAGES = (
    *("out of memory", "can't allocate memory", "not enough memory"),
    *("CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED"),
)
"""Texts in the RuntimeErrors of PyTorch, CUDA and its libraries."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error means that Python, or PyTorch on a GPU or a CPU, ran out of memory."""
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in SHORTAGES))


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping; None if the system does not report it.

    In a container (cgroup v2), at most the bytes left under its limit.
    """
    amounts = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        amounts.append(1024 * _numbers("/proc/meminfo")["MemAvailable:"])
    if not amounts:
        with contextlib.suppress(OSError, AttributeError, ValueError):  # no such number, or no sysconf
            amounts.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    left = left_in_container(Path("/sys/fs/cgroup"))
    amounts += [] if left is None else [left]
    return max(0, min(amounts)) if amounts else None


def left_in_container(group: Path) -> int | None:
    """Bytes left under a container's limit (cgroup v2), with cached files as free; None without a limit."""
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        return limit - used + _numbers(group / "memory.stat")["inactive_file"]
    except (OSError, KeyError, ValueError):  # no container, or one without a limit ("max")
        return None


def _numbers(path: str | Path) -> dict[str, int]:
    """Read a file of the kernel with a name and a number per line."""
    lines = (line.split() for line in Path(path).read_text(encoding="ascii").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
