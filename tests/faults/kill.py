"""kill -9 at random moments, again and again: python tests/faults/kill.py [--kills 50] [--seed 0]
[--only search|retrain] [--checkpoint-minutes M]

Starts `python -m cli.search` (then `cli.retrain`) in a tiny setting, kills it at a random moment, looks at the
checkpoint that is left, goes on with --resume, kills again, ... A run that reaches its end is compared with one that
was never disturbed, bit for bit (record, weights, optimisers, random states, genotype); then another one is begun,
until there were so many kills. Prints a table in Markdown. Exit codes: 0 all is well, 1 it is not.

Without --checkpoint-minutes a checkpoint is written at each epoch's end, and up to an epoch of steps may be lost; with
--checkpoint-minutes 0 after every step, and one step may be.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from commands import KINDS, STEPS, Run, finish, option, small_run

from runs import check_same_run

EPOCHS = 8


def killed(run: Run, delay: float) -> bool:
    """Starts or resumes, and kills after `delay` seconds; whether the command had not ended by itself before.

    Raises:
        RuntimeError: It ended in a failure of its own.
    """
    process = run.start()
    deadline = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    alive = process.poll() is None
    process.kill()
    _, said = process.communicate()
    if not alive and process.returncode:
        raise RuntimeError(f"{run.kind} ended with {process.returncode}: {said}")
    return alive


def try_kind(kind: str, folder: Path, kills: int, chance: random.Random, options: tuple[str, ...]) -> bool:
    """Kills a command so many times; prints a line, and one for each problem."""
    whole = small_run(kind, folder, "whole", EPOCHS, options)
    seconds = finish(whole)
    started = small_run(kind, folder, "started", EPOCHS, options)
    began = time.monotonic()
    process = started.start()
    started.wait_for(process, 1)
    start = time.monotonic() - began  # of Python and its imports: nothing is at stake before
    process.kill()
    process.communicate()
    allowed = 1 if options[-1:] == ("0",) else STEPS
    lost: list[int] = []
    problems: list[str] = []
    finished, fresh, temporary, number = 0, 0, 0, 1
    run = small_run(kind, folder, "1", EPOCHS, options)
    while len(lost) < kills:
        before = run.position()
        if not run.checkpoint.exists() and run.folder.exists():  # there is nothing to go on from, nor to lose
            fresh += 1
            shutil.rmtree(run.folder)
        if killed(run, chance.uniform(0.7 * start, start + (seconds - start) / 3)):
            lost.append(before + run.steps() - run.position())
            if not 0 <= lost[-1] <= allowed:
                problems.append(f"kill {len(lost)}: {lost[-1]} steps lost, of {before} + {run.steps()}")
            continue
        temporary += sum(path.name.endswith(".tmp") for path in run.folder.iterdir())
        problems += compared(whole, run)
        finished, number = finished + 1, number + 1
        run = small_run(kind, folder, str(number), EPOCHS, options)
    finish(run)
    temporary += sum(path.name.endswith(".tmp") for path in run.folder.iterdir())
    problems += compared(whole, run)
    print(
        f"| nas-{kind} {' '.join(options)} | {len(lost)} | {finished + 1} | {fresh} | "
        f"{sum(lost) / len(lost):.1f} / {max(lost)} / {allowed} | {len(problems) or 'none'} | {temporary} |",
        flush=True,
    )
    for problem in problems:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    return not problems


def compared(whole: Run, run: Run) -> list[str]:
    """How a run's end differs from that of the undisturbed one."""
    try:
        check_same_run(whole.folder, run.folder, run.kind)
    except AssertionError as error:
        return [f"{run.folder.name} ended otherwise: {' '.join(str(error).split())[:300]}"]
    return []


def main() -> None:
    """Tries the commands."""
    minutes, kills = option("--checkpoint-minutes", ""), int(option("--kills", "5"))
    options = ("--checkpoint_minutes", minutes) if minutes else ()
    chance = random.Random(int(option("--seed", "0")))
    only = option("--only", "")
    print(
        "| command | kills | runs | begun anew: killed before the first checkpoint | steps lost: mean / most / "
        "allowed | problems | temporary files left |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        good = [try_kind(kind, Path(folder), kills, chance, options) for kind in KINDS if only in ("", kind)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
