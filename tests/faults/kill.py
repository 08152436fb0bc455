"""kill -9 at random moments, again and again: python tests/faults/kill.py [--kills 50] [--seed 0]
[--only search,retrain,rank,seeds,sweep,predict,export,report] [--checkpoint-minutes M] [--slow-writes]

Starts `python -m cli.search` (then `cli.retrain`) in a tiny setting, kills it at a random moment, looks at the
checkpoint that is left, resumes it with --resume, kills again, ... A run that reaches its end is compared with one that
was never disturbed, bit for bit (record, weights, optimisers, random states, genotype); then another one is begun,
until there were so many kills. The other commands are killed alike, and given again word for word: `nas-rank`,
`nas-search --seeds`, `nas-sweep`, `nas-predict`, `nas-export`, `nas-report`. What they write at the end is compared
with what an undisturbed one wrote. Prints a table in Markdown. Exit codes: 0 all is well, 1 it is not.

Without --checkpoint-minutes a checkpoint is written at each epoch's end, and up to an epoch of steps may be lost; with
--checkpoint-minutes 0 after every step, and one step may be. With --slow-writes writing a checkpoint takes 0.4 seconds,
and every kill comes inside it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from commands import KINDS, STEPS, Command, Run, finish, option, small_run, whole_commands

from runs import check_same_run

EPOCHS = 8


def killed(
    start: Callable[[], subprocess.Popen[str]],
    delay: float,
    ready: Callable[[], bool] = lambda: True,
    late: float = 0.0,
) -> bool:
    """Starts or resumes, and kills after `delay` seconds, `late` ones after it is `ready`.

    Returns:
        Whether it had not ended by itself before.

    Raises:
        RuntimeError: It ended in a failure of its own.
    """
    process = start()
    deadline = time.monotonic() + delay
    while process.poll() is None and (time.monotonic() < deadline or not ready()):
        time.sleep(0.001)
    time.sleep(late)
    alive = process.poll() is None
    process.kill()
    _, said = process.communicate()
    if not alive and process.returncode:
        raise RuntimeError(f"{process.args!s:.300} ended with {process.returncode}: {said}")
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
        delay, slow = chance.uniform(0.7 * start, start + (seconds - start) / 3), "NAS_TRIES_SLOW_WRITES" in os.environ
        if killed(run.start, delay, *((run.is_writing, chance.uniform(0, 0.35)) if slow else ())):
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


def try_command(name: str, command: Command, folder: Path, kills: int, chance: random.Random) -> bool:
    """Kills a command so many times, and gives it again each time; prints a line, and one for each problem."""
    folder.mkdir()
    whole, number, done, left = folder / "whole", 1, 0, 0
    problems: list[str] = []
    began = time.monotonic()
    while killed(lambda: command.start(whole), float("inf")):
        pass
    seconds = time.monotonic() - began
    while done < kills or number == 1:
        # Nothing is at stake in the first half, which is mostly imports.
        delay = seconds * chance.uniform(0.4, 1.2) if done < kills else float("inf")
        out = folder / str(number)
        if killed(lambda out=out: command.start(out), delay):  # type: ignore[misc]
            done += 1
            continue
        left += sum(path.name.endswith(".tmp") for path in out.rglob(".*"))
        try:
            command.compare(whole, out)
        except AssertionError as error:
            problems.append(f"{out} ended otherwise: {' '.join(str(error).split())[:300]}")
        number += 1
    print(f"| nas-{name} | {done} | {number - 1} | -- | -- | {len(problems) or 'none'} | {left} |", flush=True)
    for problem in problems:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    return not problems and not left


def main() -> None:
    """Tries the commands."""
    minutes, kills = option("--checkpoint-minutes", ""), int(option("--kills", "5"))
    options = ("--checkpoint_minutes", minutes) if minutes else ()
    if "--slow-writes" in sys.argv:
        os.environ["NAS_TRIES_SLOW_WRITES"] = "1"
    chance = random.Random(int(option("--seed", "0")))
    only = [name for name in option("--only", "").split(",") if name]
    print(
        "| command | kills | ends | started again: killed before the first checkpoint | steps lost: mean / most / "
        "allowed | problems | temporary files left |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        good = [try_kind(kind, place, kills, chance, options) for kind in KINDS if not only or kind in only]
        if not only or set(only) - set(KINDS):
            good += [
                try_command(name, command, place / name, kills, chance)
                for name, command in whole_commands(place).items()
                if not only or name in only
            ]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
