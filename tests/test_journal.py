"""A sweep's journal: cut short at every byte, on a full disk, with a broken line, and gone."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

import retrain.sweeps.storage
from retrain.sweeps.storage import open_storage
from sweep_workers import make_study


def values(path: Path) -> list[tuple[str, Any]]:
    """The attributes of the study in a journal."""
    storage = open_storage(None, path)
    return [pair for study in storage.get_all_studies() for pair in study.user_attrs.items()]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of one study with three attributes; nothing in them is ASCII only."""
    storage = open_storage(None, tmp_path / "study")
    number = storage.create_new_study([retrain.sweeps.storage.optuna.study.StudyDirection.MAXIMIZE], "study")
    for name in ("first", "second", "third"):
        storage.set_study_user_attr(number, name, f"ê{name}")
    return tmp_path / "study/journal.log"


def test_a_journal_cut_at_any_byte_goes_on(journal: Path) -> None:
    content = journal.read_bytes()
    ends = [place + 1 for place in range(len(content)) if content[place : place + 1] == b"\n"]
    assert len(ends) == 4
    for size in range(ends[0], len(content) + 1):
        journal.write_bytes(content[:size])
        whole = sum(end <= size for end in ends) - 1
        names = ("first", "second", "third")[:whole]
        assert values(journal.parent) == [(name, f"ê{name}") for name in names]
        storage = open_storage(None, journal.parent)
        storage.set_study_user_attr(storage.get_study_id_from_name("study"), "new", size)
        assert values(journal.parent) == [*((name, f"ê{name}") for name in names), ("new", size)]
        assert all(json.loads(line) for line in journal.read_bytes().splitlines())


@pytest.mark.parametrize("rest", [b"\0" * 9, b"\0\0\n", b'{"op_code": 2', b"3\n", b"{" + b"x" * 200_000])
def test_what_a_power_cut_leaves_at_the_end_is_cut(journal: Path, rest: bytes) -> None:
    before = journal.read_bytes()
    journal.write_bytes(before + rest)
    if rest.endswith(b"\n"):  # a line for a reader, until it is cut
        retrain.sweeps.storage._Journal(journal).append_logs([])
    else:
        retrain.sweeps.storage._Journal(journal).append_logs([])
    assert journal.read_bytes() == before


def test_a_study_cut_short_continues_with_the_same_command(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", trials=2, sampler="random")
    study.work(lambda trial: [0.5])
    path = tmp_path / "study/journal.log"
    path.write_bytes(path.read_bytes()[:-25])
    again = make_study(tmp_path / "study", trials=2, sampler="random", patience=0.05)
    again.work(lambda trial: [0.5])
    assert sum(trial.values == [0.5] for trial in again.trials) == 2


def test_a_full_disk_leaves_the_journal_as_it_was(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = journal.read_bytes(), retrain.sweeps.storage.open_own
    storage = open_storage(None, journal.parent)

    def full(*arguments: Any, **options: Any) -> Any:
        file = real(*arguments, **options)

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> int:
                if len(data) < 30:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return int(file.write(data[:30]))

        return Full()

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(retrain.sweeps.storage, "open_own", full)
        storage.set_study_user_attr(0, "new", "x" * 100)
    assert journal.read_bytes() == before and not journal.with_name("journal.log.lock").exists()
    storage.set_study_user_attr(0, "new", 1)
    assert values(journal.parent)[-1] == ("new", 1)


def test_a_broken_line_is_named(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    for number in (1, 3):
        journal.write_bytes(b"".join([*lines[: number - 1], b'{"op_c\n', *lines[number - 1 :]]))
        with pytest.raises(ValueError, match=rf"study/journal\.log, line {number}: it is broken .* remove that line"):
            open_storage(None, journal.parent)
    journal.write_bytes(b'{"a": 1}\n' + b"".join(lines))
    with pytest.raises(ValueError, match=r"journal\.log cannot be read as a study's storage"):
        open_storage(None, journal.parent)


def test_a_journal_that_is_gone_is_not_made_again(journal: Path) -> None:
    storage = open_storage(None, journal.parent)
    journal.parent.rename(journal.parent.with_name("moved"))
    with pytest.raises((ValueError, FileNotFoundError)):
        storage.set_study_user_attr(0, "new", 1)
    with pytest.raises(ValueError, match="is gone: was the study's folder moved or removed"):
        storage.get_all_studies()
    assert not journal.parent.exists()
