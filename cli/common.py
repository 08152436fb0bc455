"""What the commands share: settings from files and options, failures as one line, exit codes.

Exit codes: 0 done; 2 wrong use or bad input (one line on standard error); 130 interrupted, after saving.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

__all__ = ["Parser", "add_run_options", "parser", "recipe_names", "run", "settings_arguments", "value_of"]

Parser = ArgumentParser

# The text under each field of a settings dataclass is its help.
set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parser(name: str, description: str) -> Parser:
    """A parser that raises on wrong use, so that `run` can say it in one line."""
    return ArgumentParser(prog=name, description=description, exit_on_error=False)


def add_run_options(parser: Parser, recipes: Path) -> None:
    """The options of every command that makes a run."""
    parser.add_argument("--config", action="config", help="YAML file of settings; options after it win.")
    names = ", ".join(recipe_names(recipes))
    parser.add_argument("--recipe", type=str | None, default=None, help=f"Shipped settings to start from: {names}.")
    parser.add_argument("--resume", type=str | None, default=None, help="Run folder to go on with, exactly.")
    parser.add_argument("--quiet", action="store_true", help="Say nothing on the screen.")


def recipe_names(folder: Path) -> tuple[str, ...]:
    """Names of the recipes in a folder."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def settings_arguments(arguments: Sequence[str], recipes: Path, without_data: str) -> list[str]:
    """Puts the settings in force before the options on the line: a run's own with --resume, else a recipe's.

    Args:
        arguments: The command line.
        recipes: Folder of the recipes.
        without_data: The recipe taken where none of --recipe, --config, --resume and --data is given.

    Raises:
        ValueError: There is no such recipe or run.
    """
    arguments = with_underscores(arguments)
    resume, recipe = value_of("--resume", arguments), value_of("--recipe", arguments)
    if resume is not None:
        if recipe is not None or value_of("--config", arguments) is not None:
            raise ValueError("--resume takes its settings from the run: leave --recipe and --config out")
        path = Path(resume) / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{resume} is not a run folder: it has no config.yaml")
        return ["--config", str(path), *arguments]
    if recipe is None and all(value_of(option, arguments) is None for option in ("--config", "--data")):
        recipe = without_data
    if recipe is None:
        return arguments
    if recipe not in recipe_names(recipes):
        raise ValueError(f"no recipe {recipe!r}: choose one of {', '.join(recipe_names(recipes))}")
    return ["--config", str(recipes / f"{recipe}.yaml"), *arguments]


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """--data-root as --data_root: both spellings are taken."""
    out = []
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argument = "--" + name[2:].replace("-", "_") + equals + value
        out.append(argument)
    return out


def value_of(option: str, arguments: Sequence[str]) -> str | None:
    """The value that an option has on a command line, `--option VALUE` or `--option=VALUE`; None if it is not there."""
    for number, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and number + 1 < len(arguments):
            return arguments[number + 1]
    return None


def run(name: str, main: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: every failure that a user can cause ends in one line on standard error.

    With NAS_TRACEBACK=1 in the environment the traceback is shown.
    """
    code, message = 0, ""
    try:
        main(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as stop:
        code, message = 130, str(stop) or "interrupted"
    except BrokenPipeError:  # the reader of our output went away, as in `nas-describe ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ArgumentError as error:
        code, message = 2, f"{error} (see {name} --help)"
    except (ValueError, ArithmeticError, OSError, MemoryError) as error:
        code, message = 2, _describe(error)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        code, message = (
            2,
            (
                "out of memory: use a smaller crop (--loader.augment.crop), batch (--loader.batch_size), space "
                "or network"
            ),
        )
    if code == 2 and os.environ.get("NAS_TRACEBACK") == "1":
        import traceback

        traceback.print_exc()
    if message:
        print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}: what was saved before is untouched"
    return str(error) or type(error).__name__


def _out_of_memory(error: RuntimeError) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def settings(config_class: Any, values: Any, extra: Sequence[str]) -> Any:
    """The config dataclass from parsed values, without the command's own options."""
    return config_class(**{key: value for key, value in vars(values).items() if key not in extra})
