"""Common parts of the commands: settings from files and options, failures as one line, exit codes.

Exit codes: 0 done; 2 wrong use or bad input (one line on standard error); 130 interrupted, after saving.

A command line is parsed once, into the values that it gives (`given`). Settings come in layers: those of a recipe, or
with --resume those of the run; over them those of --config, in order; over them the options, in any place on the line.
`complete` puts the layers over the defaults.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import signal
import sys
import threading
import warnings
from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_loader, set_parsing_settings

from cli.messages import explain, with_hyphens
from nas.config import CHANGEABLE
from nas.runs.free_memory import ADVICE, is_out_of_memory
from nas.runs.names import COMMANDS, CONFIG, RunError, command_of, runs_within
from nas.training.interruption import stopping_signals
from search_spaces.extensions import load_extensions
from search_spaces.files import YamlError, check_numbers, parse_yaml, read_yaml
from search_spaces.validation import did_you_mean, expanded, printable, raised_as, short, without_password

__all__ = [
    "Parser",
    "UsageError",
    "add_run_options",
    "add_storage",
    "check_file_name",
    "command",
    "complete",
    "given",
    "is_first",
    "layer",
    "layers",
    "parse",
    "parse_size",
    "parser",
    "refuse",
    "run",
    "say",
    "settings",
    "take_verb",
    "verbs_parser",
]

# The text under each field of a settings dataclass is its help.
set_parsing_settings(docstring_parse_attribute_docstrings=True)
set_loader("yaml", parse_yaml, (YamlError,))

BUILT_IN = "shapes"
"""The data set that needs no folder."""

_PATHS = "data_root draw file folder genotype image init_from into onnx out output plot resume root run source space"
PATHS = frozenset(["config", "contact_sheet", *_PATHS.split()])
"""Options and operands that are paths, or may be."""

PRINT_FLAGS = ("skip_default", "skip_unset")
"""Flags of --print-config."""

WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Failures after which the message tells what happened to the files."""


class UsageError(ValueError):
    """A wrong command line or settings file; the message has the remedy."""


class Parser(ArgumentParser):
    """A parser that knows which of its options are settings, and prints notes below its help."""

    notes = ""
    """Text below the help, printed as it is."""

    settings: frozenset[str] = frozenset()
    """First parts of the names of settings, which files may contain; other options are only for the command line."""

    def add_settings(self, config_class: Any, skip: Collection[str] = ()) -> None:
        """Adds an option for each setting of a dataclass."""
        self.add_class_arguments(config_class, None, skip=set(skip))
        self.settings |= {field.name for field in dataclasses.fields(config_class)}.difference(skip)

    def add_optional(self, name: str, help: str, kind: Any = str, **others: Any) -> None:
        """Adds an option or operand that is None where it is not given."""
        self.add_argument(name, type=kind | None, default=None, help=help, **others)

    def add_flag(self, name: str, help: str) -> None:
        """Adds an option without a value, False where it is not given."""
        self.add_argument(name, action="store_true", help=help)

    def add_overwrite(self) -> None:
        """Adds --overwrite, for commands that write files of the user's choice."""
        self.add_flag("--overwrite", "Replace files, too, that are there and were not written by this toolkit.")

    def setting_names(self) -> list[str]:
        """Returns the dotted names of all settings."""
        return [name for name in self.get_defaults().keys() if name.partition(".")[0] in self.settings]  # noqa: SIM118

    def option_names(self) -> list[str]:
        """Returns the names of all options, including settings."""
        return [word[2:] for action in self._actions for word in action.option_strings if word.startswith("--")]

    def format_help(self, *args: Any) -> str:
        return with_hyphens(super().format_help(*args)) + (f"\n{self.notes}\n" if self.notes else "")

    def _get_value(self, action: Action, text: str) -> Any:
        """Parses an option's value; refuses numbers that YAML reads as others where numbers are expected."""
        if re.search(r"\b(int|float)\b", hint := str(getattr(action, "_typehint", ""))) and "str" not in hint:
            try:
                check_numbers(text)
            except ValueError as error:
                raise UsageError(f"--{action.dest} is {short(text)}: {error}") from None
        return super()._get_value(action, text)

    def _parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Continues a list of operands after an option, where argparse takes the words for unknown."""
        values, unknown = super()._parse_known_args(*args, **kwargs)
        lists = [action.dest for action in self._actions if not action.option_strings and action.nargs in ("*", "+")]
        if lists and (more := [word for word in unknown if not word.startswith("-")]):
            values[lists[-1]] = (values.get(lists[-1]) or []) + more
            unknown = [word for word in unknown if word.startswith("-")]
        return values, unknown


def parser(name: str, description: str, operands: str = "") -> Parser:
    """Makes a parser that raises on wrong use, so that `run` can print it in one line."""
    usage = " ".join((name, *operands.split(), "[options]"))
    # No abbreviations: a new option could change the meaning of one.
    return Parser(prog=name, usage=usage, description=description, exit_on_error=False, allow_abbrev=False)


def verbs_parser(name: str, description: str, verbs: Mapping[str, str]) -> Parser:
    """Makes the parser of a command with verbs, only for its help: each verb has its own parser."""
    made = parser(name, description, "VERB")
    made.add_argument("verb", metavar="VERB", choices=tuple(verbs), help="What to do; see below.")
    width = max(map(len, verbs))
    made.notes = "verbs:\n" + "\n".join(f"  {verb:<{width}}  {text}" for verb, text in verbs.items())
    return made


def take_verb(
    make_parser: Callable[[], Parser], arguments: Sequence[str], verbs: Collection[str] = ()
) -> tuple[str, list[str]]:
    """Splits off the verb, which must be one of `verbs` if there are any; prints the help if an option comes first.

    Raises:
        UsageError: There is no verb, or no such one.
    """
    verb, *rest = arguments or [""]
    if not verb or verb.startswith("-"):
        parse(make_parser(), arguments)  # prints the help, or raises
    if verbs and verb not in verbs:
        near = did_you_mean(verb, verbs) or ":"
        raise UsageError(f"no verb {verb!r}{near} choose one of {', '.join(verbs)} (see {make_parser().prog} --help)")
    return verb, rest


def add_run_options(parser: Parser, recipes: Path, resumes: bool = True) -> None:
    """Adds the options of every command that makes runs; the parser must have the settings already.

    Without `resumes`, --resume is hidden, to be refused with a better message.
    """
    parser.add_argument(
        "--config", action="append", default=SUPPRESS, help="YAML file of settings; options override it."
    )
    # Without a value it is `--print_config=` to the base class.
    parser.add_argument(
        "--print_config",
        default=SUPPRESS,
        metavar="\b[=flags]",
        help="Print the resulting settings as a file for --config, and exit. Flags, with commas: skip_default leaves "
        "out default values, skip_unset null values.",
    )
    recipe_help = f"Shipped settings to start from: {', '.join(_recipe_names(recipes))}."
    if resumes:
        recipe_help += (
            " Without --data, --recipe, --config and --resume a small one is taken, whose values replace the defaults "
            "below; --print_config shows the result."
        )
    parser.add_optional("--recipe", recipe_help)
    if resumes:
        changeable = ", ".join(f"--{name}" for name in parser.setting_names() if name in CHANGEABLE - {"out"})
        parser.add_optional("--resume", f"Run folder to resume with its own settings; these may change: {changeable}.")
    else:
        parser.add_argument("--resume", nargs="?", default=SUPPRESS, help=SUPPRESS)
    parser.add_flag("--quiet", "Print nothing on the screen.")


def add_storage(parser: Parser) -> None:
    """Adds the options of where workers keep their results."""
    parser.add_optional(
        "--storage",
        "Storage of the results, which workers share: journal (a file in the folder, the default), sqlite (the same), "
        "a journal file (.log), sqlite:///FILE, postgresql://USER@HOST/NAME, or grpc://HOST:PORT (nas-sweep proxy). "
        "$NAME stands for a variable of the environment: an address with a password is safe there from others' eyes.",
    )
    parser.add_optional("--study", "Name of the study in the storage; that of the folder if not given.")


def given(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Parses a command line into the values that it gives, without defaults and without those of files.

    Raises:
        UsageError: An unknown option, or a value of the wrong type.
    """
    words = _with_underscores(arguments)
    with _in_our_words(parser, words):
        values = parser.parse_args(words, defaults=False)
    for action in parser._actions:
        if not action.option_strings and values.get(action.dest) in (None, []):  # an operand that was left out
            values.pop(action.dest, None)
    for name in PATHS.intersection(vars(values)):
        with raised_as(UsageError, f"{name}: "):
            if isinstance(words := values[name], list):
                values[name] = [*map(expanded, words)]
            elif words is not None:
                values[name] = expanded(words)
    return values


def layer(parser: Parser, data: Mapping[str, Any]) -> Namespace:
    """Parses settings in plain data.

    Raises:
        UsageError: A value is of the wrong type.
    """
    with _in_our_words(parser):
        return parser.parse_object(dict(data), defaults=False)


def layers(
    parser: Parser,
    given: Namespace,
    recipes: Path,
    without_data: str,
    searched: Callable[[Sequence[Namespace]], Mapping[str, Any]] = lambda _: {},
) -> tuple[Namespace, list[Namespace]]:
    """Reads the settings below the options: those of the run to resume or of a recipe, and those of each --config file.

    Where none of --recipe, --config and --resume is given, and no data but the built-in, the recipe `without_data` is
    taken, and a line is printed about it. Where no layer names data, that of the genotypes' search is taken: `searched`
    returns its settings, given the layers over the recipe.

    Raises:
        UsageError: There is no such recipe or run, a recipe is for data and none is named, or a file is not one of
            settings.
    """
    resume, recipe, files = given.get("resume"), given.get("recipe"), given.get("config", [])
    if resume is not None:
        if recipe is not None or files:
            raise UsageError("--resume takes its settings from the run: leave --recipe and --config out")
        if "out" in given:
            raise UsageError(f"--resume writes into the run's own folder, {resume}: leave --out out")
        path = Path(resume) / "config.yaml"
        if not path.is_file():
            raise UsageError(f"{resume} is not a run folder: it has no config.yaml{runs_within(resume)}")
        _check_kind(parser.prog, path)
        return _read_settings(parser, path), []
    over = [_read_settings(parser, Path(file)) for file in files]
    tells = is_first() and not ("quiet" in given or "print_config" in given)
    carried = searched([*over, given]) if not any("data" in one for one in (*over, given)) else {}
    if recipe is None and not files and given.get("data", carried.get("data", BUILT_IN)) == BUILT_IN:
        recipe = without_data
        if tells:
            print(
                f"the recipe `{recipe}` on the built-in data set `{BUILT_IN}`: reduced size and few steps, as a demo; "
                "--data or --recipe choose another"
            )
    base = Namespace()
    if recipe is not None:
        if recipe not in _recipe_names(recipes):
            raise UsageError(f"no recipe {recipe!r}: choose one of {', '.join(_recipe_names(recipes))}")
        base = _read_settings(parser, recipes / f"{recipe}.yaml")
        yours = carried.get("data", BUILT_IN) != BUILT_IN
        if not (files or yours or "data" in given or "data" in base or "print_config" in given):
            raise UsageError(f"the recipe {recipe} is for your data: give --data NAME --data-root FOLDER, too")
    if carried and "data" not in base:
        base.update(layer(parser, carried))
        root = base.get("data_root")
        told = f"the data of the search, {carried['data']}{f' at {root}' if root else ''}"
        if root and not Path(root).is_dir() and not any("data_root" in one for one in (*over, given)):
            raise UsageError(f"{told}, is gone: give --data-root FOLDER where it is now, or other data by --data")
        if tells:
            print(f"{told}; --data chooses other data")
    return base, over


def complete(parser: Parser, *layers: Namespace) -> Namespace:
    """Puts layers over the defaults, each over those before; groups of settings become their dataclasses.

    With --print-config among the layers, prints the settings and exits.

    Raises:
        ValueError: A dataclass refuses a value.
    """
    values = parser.get_defaults()
    for one in layers:
        values.update(one)
    if "print_config" in values:
        flags = [flag for flag in values.pop("print_config").split(",") if flag]
        if unknown := set(flags).difference(PRINT_FLAGS):
            raise UsageError(f"--print-config has no flag {min(unknown)!r}: give {' or '.join(PRINT_FLAGS)}")
        kept = Namespace({name: value for name, value in vars(values).items() if name in parser.settings})
        print(parser.dump(kept, **{flag: flag in flags for flag in PRINT_FLAGS}), end="")
        parser.exit()
    return parser.instantiate(values)


def parse(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Parses a command line into its values and the defaults of the others."""
    return complete(parser, given(parser, arguments))


def settings(config_class: Any, values: Namespace) -> Any:
    """Makes the config dataclass of parsed values."""
    return config_class(**{f.name: values[f.name] for f in dataclasses.fields(config_class) if f.name in values})


def refuse(given: Namespace, reasons: Mapping[str, str]) -> None:
    """Raises a UsageError with the reason if one of these options is given."""
    for name, reason in reasons.items():
        if name in given:
            raise UsageError(f"{reason}: leave --{name} out")


def check_file_name(option: str, name: str | None) -> None:
    """Raises a UsageError if the file to write is a folder."""
    if name is not None and (not Path(name).name or Path(name).is_dir()):
        raise UsageError(f"--{option} is {name!r}, a folder: give the name of a file in it")


def parse_size(option: str, text: str) -> tuple[int, int]:
    """Parses HEIGHTxWIDTH, or [HEIGHT, WIDTH], in pixels; raises a ValueError that names the option."""
    parts = [part.strip() for part in text.lower().strip("[]() ").replace(",", "x").split("x")]
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= 65536 for part in parts):
        raise ValueError(f"{option} is {text!r}: give HEIGHTxWIDTH in pixels, such as 512x1024")
    return int(parts[0]), int(parts[1])


def is_first() -> bool:
    """Whether this process is rank 0, the only one that prints."""
    return os.environ.get("RANK", "0") == "0"


def say(*texts: object, **how: Any) -> None:
    """Prints as `print` does, with the control characters in names escaped."""
    print(*(printable(str(text)) for text in texts), **how)


@contextmanager
def _in_our_words(parser: Parser, arguments: Sequence[str] = ()) -> Iterator[None]:
    try:
        yield
    except ArgumentError as error:
        text = explain(" ".join(str(error).split()), arguments, parser.option_names())
        raise UsageError(f"{text} (see {parser.prog} --help)") from error


def _with_underscores(arguments: Sequence[str]) -> list[str]:
    """Replaces --data-root by --data_root, the name of the setting."""
    return [re.sub(r"(?<=^--)[^=]*", lambda name: name[0].replace("-", "_"), word) for word in arguments]


def _recipe_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def _check_kind(command: str, path: Path) -> None:
    """Checks that this command made the run."""
    try:
        owner = command_of(path.parent)
    except RunError as error:
        raise UsageError(str(error)) from error
    if owner != command:
        raise UsageError(f"{path.parent} is a run of {owner}: resume it with {owner} --resume {path.parent}")


def _read_settings(parser: Parser, file: Path) -> Namespace:
    try:
        if file.is_dir():  # a run folder
            file /= CONFIG
        data = read_yaml(file)  # before the parser reads it, which would unfold aliases
    except YamlError as error:
        raise UsageError(f"{error}. Name a YAML file of settings") from error
    if data is None:
        raise UsageError(f"{file} is empty: expected `name: value`, one a line")
    _check_names(parser, file, data)
    return layer(parser, {name: value for name, value in data.items() if name != "command"})


def _check_names(parser: Parser, file: Path, data: object) -> None:
    """Checks that all names in a file are settings; the parser checks their values."""
    leaves = parser.setting_names()
    groups = {name.rpartition(".")[0] for name in leaves} - {""}
    groups |= {group.rpartition(".")[0] for group in groups} - {""}

    def check(data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            what = f"setting {where[:-1]} is" if where else "content is"
            raise UsageError(f"{file}: the {what} {short(data)}: give `name: value`, one a line")
        for key, value in data.items():
            name = f"{where}{key}"
            if name in groups:
                check(value, f"{name}.")
            elif name not in leaves and name in parser.option_names():
                raise UsageError(f"{file}: {name} is no setting: give --{name} on the command line")
            elif name not in leaves and not (name == "command" and value in COMMANDS):
                raise UsageError(f"{file}: there is no setting {name}{did_you_mean(name, leaves)}")

    check(data, "")


def command(name: str, main: Callable[[list[str]], None]) -> Callable[[], None]:
    """Makes the console script of a command."""
    return partial(run, name, main)


@contextmanager
def _handlers(name: str) -> Iterator[None]:
    """Sets the handling of text, warnings, failed threads and signals while a command runs."""
    before = threading.excepthook, warnings.showwarning
    for stream in (sys.stdout, sys.stderr):  # what the screen cannot show is escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A failure of TensorBoard's thread, such as a full disk, is raised in the main thread, too: one line is enough.
    threading.excepthook = lambda failure: (
        None if isinstance(failure.exc_value, OSError) else threading.__excepthook__(failure)
    )
    warnings.showwarning = lambda text, *_: say(f"{name}: {with_hyphens(str(text))}", file=sys.stderr)
    takes_signals = threading.current_thread() is threading.main_thread()
    if takes_signals:  # they act like Ctrl-C, also before a run handles them
        handlers = {number: signal.signal(number, signal.default_int_handler) for number in stopping_signals()[1:]}
    try:
        yield
    finally:
        threading.excepthook, warnings.showwarning = before
        if takes_signals:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        sys.stdout.flush()  # here, and not at exit, where a failure could not be caught


def _hide_passwords() -> None:
    """Starts the command again if it names a storage with a password, which moves from its words to its environment.

    Everybody sees the words of a process, and only its user sees its environment.
    """
    words = [sys.executable, *sys.orig_argv[1:]]
    for place, word in enumerate(words):
        address = word.removeprefix("--storage=")
        if address == word and words[place - 1] != "--storage":
            continue
        if os.path.expandvars(address) == address != without_password(address):
            os.environ["NAS_STORAGE"] = address
            words[place] = word.replace(address, "$NAS_STORAGE")
            os.execv(sys.executable, words)


def run(name: str, main: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: every failure that a user can cause ends in one line on standard error.

    NAS_TRACEBACK=1 in the environment shows the traceback. The extensions in NAS_EXTENSIONS are loaded first.
    """
    code, message = 0, ""
    failure: BaseException | None = None
    if arguments is None and os.name == "posix":
        _hide_passwords()
    try:
        with _handlers(name):
            load_extensions()
            main(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as stop:
        code, message = 130, str(stop) or "interrupted"
    except BrokenPipeError:  # the reader of the output has ended, as in `nas-describe ... | head`
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
    alike = failure is None or isinstance(failure, UsageError)  # in all processes: rank 0 prints it
    if message and (is_first() or not alike):
        who = name if is_first() else f"{name}, process {os.environ['RANK']}"
        with suppress(OSError):  # the terminal was closed
            say(f"{who}: {with_hyphens(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{where}{error.strerror}: choose a folder that you may write to, or read from"
        return f"{where}{error.strerror}{': what was saved before is untouched' * (error.errno in WRITING)}"
    return str(error) or type(error).__name__
