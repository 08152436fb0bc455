"""The commands: one thin file each, which parses, calls one function, and prints."""

import sys
from pathlib import Path
from types import TracebackType


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints no traceback for Ctrl-C while a command is still being imported, before `common.run` handles it."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m" or Path(sys.argv[0]).name.startswith("nas-"):  # a command, not a program that imports one
    sys.excepthook = _show
