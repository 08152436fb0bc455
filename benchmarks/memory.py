"""The peak of memory above what was there before."""

from __future__ import annotations

import re
from pathlib import Path

import torch

__all__ = ["PeakMemory"]

MIB = 2**20


class PeakMemory:
    """From now on, how much memory was needed at most, besides what is in use now.

    On a GPU, what PyTorch's allocator has given out. On the CPU, the process's resident memory as Linux counts it;
    other systems do not say (`mib` is None). Linux's peak is that of the process's whole life where it refuses to be
    set back; then only what lies above it is seen.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before: float | None = torch.cuda.memory_allocated(device) / MIB
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS (man 5 proc)
            self.before = _resident("VmRSS")
        except OSError:
            self.before = _resident("VmHWM")

    def mib(self) -> float | None:
        """MiB of the peak since this object was made, above what was in use then."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) / MIB if cuda else _resident("VmHWM")
        return None if peak is None or self.before is None else peak - self.before


def _resident(name: str) -> float | None:
    """MiB of VmRSS, in use, or VmHWM, the most that ever was."""
    file = Path("/proc/self/status")
    match = re.search(rf"^{name}:\s*(\d+) kB", file.read_text(), re.MULTILINE) if file.exists() else None
    return int(match[1]) / 1024 if match else None
