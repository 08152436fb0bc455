"""The device, the precision and the random state of a run."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from nas.config import Precision, full_precision

__all__ = [
    "autocast",
    "choose_device",
    "grad_scaler",
    "keep_kernels",
    "random_state",
    "restore_random_state",
    "seed_everything",
    "set_float32",
]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
AMPERE = (8, 0)
"""Compute capability."""


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU if there is one, else the CPU.

    Raises:
        ValueError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}: give auto, cpu, cuda, or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= (there := torch.cuda.device_count()):
        raise ValueError(f"device is {name!r}, but PyTorch sees {there} GPUs here: use --device cpu")
    return device


def set_float32(device: torch.device, precision: Precision) -> None:
    """Sets, for the whole process, whether float32 products may be rounded to TF32 on an NVIDIA GPU.

    By default, PyTorch rounds the products of convolutions but not of matrices. Here float32 is float32, so that runs
    on GPU and CPU agree to rounding, and TF32 has its own name.

    Raises:
        ValueError: TF32 is asked for on a device without it.
    """
    wanted = precision == "tf32"
    if wanted and (device.type != "cuda" or torch.cuda.get_device_capability(device) < AMPERE):
        raise ValueError(
            "precision is 'tf32', which only NVIDIA GPUs from Ampere on have: give --precision float32, or --device "
            "cuda where there is one"
        )
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted


def keep_kernels() -> None:
    """Makes oneDNN, which computes convolutions on CPUs, cache more compiled kernels.

    It caches 1,024, but a supernet's convolutions have more shapes (1,313 in a step of `autodeeplab`), and it would
    compile the others in every step. Has no effect once the process has computed a convolution.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Automatic mixed precision for forward passes; disabled for float32 and tf32."""
    dtype = _DTYPES.get(full_precision(precision))
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def grad_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """Loss scaling, which float16 needs; disabled in the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=full_precision(precision) == "float16")


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The states of all global generators, as plain containers and tensors."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restores the result of `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([entry.cpu() for entry in state["cuda"]])
