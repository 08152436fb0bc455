"""What the commands share: settings from files and options, failures as one line, exit codes.

Exit codes: 0 done; 2 wrong use or bad input (one line on standard error); 130 interrupted, after saving.
Settings: a recipe's, or a run's own with --resume; over them those of --config; over them the options, wherever they
stand on the line.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import warnings
from argparse import Action, ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader, set_parsing_settings

from cli.messages import explain, with_hyphens
from nas.runs.free_memory import ADVICE, is_out_of_memory
from nas.runs.names import COMMANDS, RunError, command_of, runs_within
from search_spaces.extensions import load_extensions
from search_spaces.files import YamlError, check_numbers, parse_yaml, read_yaml
from search_spaces.validation import did_you_mean, short

__all__ = [
    "Parser",
    "UsageError",
    "add_run_options",
    "is_first",
    "operand",
    "parse",
    "parser",
    "recipe_names",
    "run",
    "settings",
    "settings_arguments",
    "value_of",
    "with_underscores",
]

# The text under each field of a settings dataclass is its help.
set_parsing_settings(docstring_parse_attribute_docstrings=True)
set_loader("yaml", parse_yaml, (YamlError,))

OUTSIDE_SETTINGS = ("config", "recipe", "resume", "quiet", "seeds", "random", "split", "run")
"""Options of the commands that make runs which are none of their settings."""

BUILT_IN = "shapes"
"""The data set that needs no folder."""

WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Failures after which a user asks what became of the files."""


class UsageError(ValueError):
    """A command line or a settings file that is wrong: the message says what to give instead."""


class Parser(ArgumentParser):
    """A parser that prints settings as a file that --config takes, and a list below its help."""

    notes = ""
    """What stands below the help, line by line as it is."""

    def format_help(self, *args: Any) -> str:
        """The help and the notes."""
        return with_hyphens(super().format_help(*args)) + (f"\n{self.notes}\n" if self.notes else "")

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Any:
        """The settings in a file; the line of a config.yaml that names the command of the run is none of them."""
        return super().parse_string(re.sub(r"(?m)^command:.*$", "", content), *args, **kwargs)

    def _get_value(self, action: Action, text: str) -> Any:
        """An option's value; numbers that YAML reads as others are refused where numbers are expected."""
        if re.search(r"\b(int|float)\b", hint := str(getattr(action, "_typehint", ""))) and "str" not in hint:
            try:
                check_numbers(text)
            except ValueError as error:
                raise UsageError(f"--{action.dest} is {short(text)}: {error}") from None
        return super()._get_value(action, text)

    def dump(self, namespace: Namespace, *args: Any, **kwargs: Any) -> str:
        """The settings as YAML, for --print-config, without the options that are no settings."""
        return super().dump(_only_settings(namespace), *args, **kwargs)


def parser(name: str, description: str, operands: str = "") -> Parser:
    """A parser that raises on wrong use, so that `run` can say it in one line.

    Args:
        name: The command.
        description: What it does.
        operands: The arguments before the options, for the first line of the help.
    """
    usage = " ".join((name, *operands.split(), "[options]"))
    # Without abbreviations: an option that begins like two others would change its meaning with the next release.
    return Parser(prog=name, usage=usage, description=description, exit_on_error=False, allow_abbrev=False)


def add_run_options(parser: Parser, recipes: Path) -> None:
    """The options of every command that makes a run."""
    parser.add_argument("--config", action="config", help="YAML file of settings; options win over it.")
    recipe_help = (
        f"Shipped settings to start from: {', '.join(recipe_names(recipes))}. Without --data, --recipe, --config and "
        "--resume a small one is taken, whose values replace the defaults below; --print_config shows what is in force."
    )
    parser.add_argument("--recipe", type=str | None, default=None, help=recipe_help)
    parser.add_argument(
        "--resume",
        type=str | None,
        default=None,
        help="Run folder to go on with, exactly and with its own settings; --epochs, --device, --data-root, "
        "--loader.workers, .prefetch, .cache, --memory-check and a search's --supernet.engine, "
        ".recompute, .graphs and --health may be given anew.",
    )
    parser.add_argument("--quiet", action="store_true", help="Say nothing on the screen.")


def recipe_names(folder: Path) -> tuple[str, ...]:
    """Names of the recipes in a folder."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def settings_arguments(parser: Parser, arguments: Sequence[str], recipes: Path, without_data: str) -> list[str]:
    """Puts the settings in force first: a run's own with --resume, else a recipe's; then files; then options.

    Args:
        parser: The command's parser.
        arguments: The command line.
        recipes: Folder of the recipes.
        without_data: The recipe taken where none of --recipe, --config and --resume is given and no data but the
            built-in; a line says so.

    Raises:
        UsageError: There is no such recipe or run, a recipe is for data and none is named, or a file is not one of
            settings.
    """
    arguments = with_underscores(arguments)
    if {"--help", "-h"} & set(arguments):  # the help shows no settings in force: it need not wait for them
        return arguments
    files, arguments = _take_files(arguments)
    resume, recipe = value_of("--resume", arguments), value_of("--recipe", arguments)
    if resume is not None:
        if recipe is not None or files:
            raise UsageError("--resume takes its settings from the run: leave --recipe and --config out")
        if value_of("--out", arguments) is not None:
            raise UsageError(f"--resume goes on in the run's own folder, {resume}: leave --out out")
        path = Path(resume) / "config.yaml"
        if not path.is_file():
            raise UsageError(f"{resume} is not a run folder: it has no config.yaml{runs_within(resume)}")
        _check_kind(parser.prog, path)
        files = [str(path)]
    elif recipe is None and not files and value_of("--data", arguments) in (None, BUILT_IN):
        recipe = without_data
        if is_first() and not {"--quiet", "--print_config"} & set(arguments):
            print(
                f"the recipe `{recipe}` on the built-in data set `{BUILT_IN}`: reduced size and few steps, to see it "
                "work; --data or --recipe choose another"
            )
    if recipe is not None:
        if recipe not in recipe_names(recipes):
            raise UsageError(f"no recipe {recipe!r}: choose one of {', '.join(recipe_names(recipes))}")
        named = files or value_of("--data", arguments) or _names_data(recipes / f"{recipe}.yaml")
        if not (named or "--print_config" in arguments):
            raise UsageError(f"the recipe {recipe} is for your data: give --data NAME --data-root FOLDER, too")
        files = [str(recipes / f"{recipe}.yaml"), *files]
    for file in files:
        _check_file(parser, file)
    return [*(word for file in files for word in ("--config", file)), *arguments]


def _names_data(file: Path) -> bool:
    return "data" in yaml.safe_load(file.read_text(encoding="utf-8"))


def _check_kind(command: str, path: Path) -> None:
    """Checks that a run was made by the command that is to resume it."""
    try:
        owner = command_of(path.parent)
    except RunError as error:
        raise UsageError(str(error)) from error
    if owner != command:
        raise UsageError(f"{path.parent} is a run of {owner}: resume it with {owner} --resume {path.parent}")


def _take_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files of --config, and the other arguments."""
    files, others, rest = [], [], iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != "--config":
            others.append(argument)
            continue
        file = value if equals else next(rest, None)
        if not file:
            raise UsageError("--config needs a value: name a YAML file of settings")
        files.append(file)
    return files, others


def _check_file(parser: Parser, file: str) -> None:
    """Checks that a file is YAML and that all its names are settings; the parser checks the values."""
    try:
        data = read_yaml(file)  # before the parser reads it, which would unfold aliases
    except YamlError as error:
        raise UsageError(f"{error}. Name a YAML file of settings") from error
    if data is None:
        raise UsageError(f"{file} is empty: expected `name: value`, one a line")
    defaults = parser.get_defaults()
    leaves = [name for name in defaults.keys() if name not in (*OUTSIDE_SETTINGS, "source")]  # noqa: SIM118 (dotted)
    groups = {name.rpartition(".")[0] for name in leaves} - {""}
    groups |= {group.rpartition(".")[0] for group in groups} - {""}

    def check(data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            what = f"setting {where[:-1]} is" if where else "content is"
            raise UsageError(f"{file}: the {what} {short(data)}: give `name: value`, one a line")
        for key, value in data.items():
            name = f"{where}{key}"
            if name in OUTSIDE_SETTINGS and (name == "config" or name in defaults):
                raise UsageError(f"{file}: {name} is no setting: give --{name} on the command line")
            if name in groups:
                check(value, f"{name}.")
            elif name not in leaves and not (name == "command" and value in COMMANDS):
                raise UsageError(f"{file}: there is no setting {name}{did_you_mean(name, leaves)}")

    check(data, "")


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """--data-root as --data_root, the name of the setting: both spellings are taken."""
    out = []
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argument = "--" + name[2:].replace("-", "_") + equals + value
        out.append(argument)
    return out


def value_of(option: str, arguments: Sequence[str]) -> str | None:
    """The value that an option has on a command line, `--option VALUE` or `--option=VALUE`; None if it is not there.

    As everywhere, the last one counts.
    """
    found = None
    for number, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            found = argument.partition("=")[2]
        elif argument == option and number + 1 < len(arguments):
            found = arguments[number + 1]
    return found


def is_first() -> bool:
    """Whether this process is the one that speaks; of several that torchrun started, the others do not."""
    return os.environ.get("RANK", "0") == "0"


def operand(parser: Parser, arguments: Sequence[str]) -> str | None:
    """The first argument that is neither an option nor an option's value; None if there is none."""
    flags = {option for action in parser._actions if action.nargs == 0 for option in action.option_strings}
    flags.add("--print_config")  # its value, if any, stands behind an equals sign
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            return word
        if "=" not in word and word not in flags:
            next(words, None)
    return None


def parse(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Parses a command line; groups of settings become their dataclasses.

    Raises:
        UsageError: An unknown option, or a value of the wrong type.
        ValueError: A value that its dataclass refuses.
    """
    arguments = with_underscores(arguments)
    try:
        values = parser.parse_args(arguments)
    except ArgumentError as error:
        options = [word[2:] for action in parser._actions for word in action.option_strings if word.startswith("--")]
        text = explain(" ".join(str(error).split()), arguments, options)
        raise UsageError(f"{text} (see {parser.prog} --help)") from error
    return parser.instantiate(values)


def _only_settings(values: Namespace) -> Namespace:
    kept = values.clone()
    source = kept.pop("source", None)
    if source is not None:  # the first argument of nas-retrain is a setting too
        kept["genotype"] = source
    for name in OUTSIDE_SETTINGS:
        kept.pop(name, None)
    return kept


def settings(config_class: Any, values: Namespace) -> Any:
    """The config dataclass from parsed values, without the command's own options."""
    return config_class(**vars(_only_settings(values)))


@contextmanager
def _handlers(name: str) -> Iterator[None]:
    """What the process does with warnings, failed threads and SIGTERM while a command runs; then as it was before."""
    before = threading.excepthook, warnings.showwarning
    # What ends a thread of TensorBoard's, such as a full disk, is raised in ours, too: one line is enough.
    threading.excepthook = lambda failure: (
        None if isinstance(failure.exc_value, OSError) else threading.__excepthook__(failure)
    )
    warnings.showwarning = lambda text, *_: print(f"{name}: {with_hyphens(str(text))}", file=sys.stderr)
    takes_signals = threading.current_thread() is threading.main_thread()
    if takes_signals:  # SIGTERM is as Ctrl-C, also before a run takes them over
        terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        threading.excepthook, warnings.showwarning = before
        if takes_signals:
            signal.signal(signal.SIGTERM, terminate)
        sys.stdout.flush()  # here, and not at exit, where a failure could not be caught


def run(name: str, main: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: every failure that a user can cause ends in one line on standard error.

    With NAS_TRACEBACK=1 in the environment the traceback is shown. The extensions that NAS_EXTENSIONS names are loaded
    first.
    """
    code, message = 0, ""
    failure: BaseException | None = None
    try:
        with _handlers(name):
            load_extensions()
            main(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as stop:
        code, message = 130, str(stop) or "interrupted"
    except BrokenPipeError:  # the reader of our output went away, as in `nas-describe ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ArgumentError as error:
        code, message, failure = 2, f"{error} (see {name} --help)", error
    except (ValueError, ArithmeticError, OSError) as error:
        code, message, failure = 2, _describe(error), error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        code, message, failure = 2, f"out of memory: {ADVICE}; or smaller images", error
    if failure is not None and os.environ.get("NAS_TRACEBACK") == "1":
        import traceback

        traceback.print_exception(failure)
    spoken_for = failure is None or isinstance(failure, UsageError)  # of several processes, by the first one
    if message and (is_first() or not spoken_for):
        who = name if is_first() else f"{name}, process {os.environ['RANK']}"
        print(f"{who}: {with_hyphens(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{where}{error.strerror}: choose a folder that you may write to, or read from"
        return f"{where}{error.strerror}{': what was saved before is untouched' * (error.errno in WRITING)}"
    return str(error) or type(error).__name__
