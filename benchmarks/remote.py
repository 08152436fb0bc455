"""An object in a process of its own, so that its memory can be measured, and so that it can run out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from nas.runs.free_memory import is_out_of_memory

__all__ = ["Remote"]

OUT_OF_MEMORY = "out of memory: give a smaller crop, batch or space, or fewer variants"


class Remote:
    """Makes an object in a new process, and has its methods called there.

    Args:
        make: Makes the object; importable by its name, as what it is given must be picklable.
        arguments: For `make`.
    """

    def __init__(self, make: Callable[..., object], *arguments: Any) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        self._process.start()
        other.close()  # else the end of the process would not be noticed here
        self._made = False

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the object's method returns.

        Raises:
            MemoryError: The process ran out of memory, or was killed, for which that is the usual reason.
            ValueError, ArithmeticError: The object raised it. The process has ended.
        """
        if not self._made:
            self._receive()
            self._made = True
        with contextlib.suppress(BrokenPipeError):  # what is to be received says why
            self._pipe.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            if code is not None and code < 0:
                raise MemoryError(OUT_OF_MEMORY) from None
            raise RuntimeError(f"the process ended with exit code {code}: see its traceback above") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _serve(pipe: Connection, make: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """The process: answers (method, arguments) until the other end is closed; a failure is its last answer."""
    try:
        subject = make(*arguments)
        pipe.send(None)
        while True:
            method, values = pipe.recv()
            pipe.send(getattr(subject, method)(*values))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return
    except (ValueError, ArithmeticError) as error:
        pipe.send(type(error)(str(error)))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        pipe.send(MemoryError(OUT_OF_MEMORY))
