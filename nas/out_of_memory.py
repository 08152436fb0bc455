"""What to say where memory does not suffice, before a run or within it. No torch: the command line imports it."""

from __future__ import annotations

__all__ = ["ADVICE", "is_out_of_memory"]

ADVICE = (
    "use a smaller crop (--loader.augment.crop) or batch (--loader.batch-size, with --accumulate for updates as from a "
    "larger one), --precision bfloat16, a smaller space or network, or in a search --supernet.recompute node or "
    "--partial-channels"
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this is how Python, or PyTorch on a GPU or a CPU, says that it gets no more memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
