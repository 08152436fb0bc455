"""SIGTERM, Ctrl-C and a second Ctrl-C, tried on the commands: python tests/faults/signals.py [--seed 0]

Each signal is sent at a random step. The command must end with 130 and one line, having saved the step that it was at;
--resume then goes on with the very next batch, to the same end as an undisturbed run, bit for bit. A second Ctrl-C ends
at once, with what was saved before. Prints a table in Markdown. Exit codes: 0 all is well, 1 it is not.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from commands import KINDS, STEPS, Run, finish, option, small_run
from kill import compared

EPOCHS = 4
SIGNALS = {
    "SIGTERM": (signal.SIGTERM,),
    "Ctrl-C": (signal.SIGINT,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
}


def stopped(run: Run, signals: tuple[signal.Signals, ...], step: int) -> tuple[int, str, float]:
    """Sends the signals at a step; returns the exit code, what was said, and the seconds that it took to end."""
    process = run.start()
    run.wait_for(process, step)
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.001)  # two at once would arrive as one
    _, said = process.communicate()
    return process.returncode, said.strip(), time.monotonic() - began


def try_kind(kind: str, folder: Path, chance: random.Random) -> bool:
    """Tries each signal twice; prints a line each."""
    whole = small_run(kind, folder, "whole", EPOCHS)
    finish(whole)
    good = True
    for number, name in enumerate(2 * tuple(SIGNALS)):
        run = small_run(kind, folder, str(number), EPOCHS)
        step = chance.randint(1, EPOCHS * STEPS - 2)
        code, said, seconds = stopped(run, SIGNALS[name], step)
        taken, kept = run.steps(), run.position()
        finish(run)
        problems = compared(whole, run)
        saved = kept == taken or name == "Ctrl-C twice"
        fine = code == 130 and saved and said.count("\n") == 0 and not problems
        good &= fine
        end = problems[0] if problems else "the same, bit for bit"
        print(f"| nas-{kind} | {name} | {taken} | {code} | {seconds:.1f} | {kept} | {end} |", flush=True)
        if not fine:
            print(f"PROBLEM: {said}", file=sys.stderr)
    return good


def main() -> None:
    """Tries the commands."""
    chance = random.Random(int(option("--seed", "0")))
    print("| command | signal | at step | exit code | seconds to the end | step saved | end after --resume |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        good = [try_kind(kind, Path(folder), chance) for kind in KINDS]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
