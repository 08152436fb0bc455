"""What a path, a name and a screen may be: expansion, escapes, links, passwords, files of others, folders that move."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import nas.runs.folder
import retrain
import retrain.demo
import retrain.sweeps.study
import search_spaces
from nas.config import SearchConfig, recipe
from nas.darts import search
from nas.runs.folder import MovedError, RunFolder, claimed, new_folder, pinned
from nas.runs.names import FILES, RunError
from nas.seeds import search_seeds
from nas.training.interruption import InterruptedRun, Interruption, stopping_signals
from retrain.config import RankingConfig
from retrain.networks.settings import NetworkConfig
from retrain.pictures.config import PictureConfig
from retrain.pictures.drawing import draw_pictures
from retrain.prediction import predict
from retrain.ranking.training import rank
from retrain.report.page import write_report
from retrain.sweeps.settings import load_sweep
from retrain.sweeps.storage import open_storage
from retrain.training import train
from runs import Killed, check_same_run, interrupt, kill, on_step
from search_spaces.files import MARK, check_replaceable, open_own, read_yaml, temporary_beside, write_atomically
from search_spaces.genotype import load_genotype
from search_spaces.validation import as_path, expanded, from_plain, printable, to_plain, without_password
from sweep_workers import make_study
from tiny import GENOTYPE, called, command, refused, searching, training, without_pictures

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)


# Paths


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~", "{home}"),
        ("~/x y", "{home}/x y"),
        ("$PLACE/x", "{here}/x"),
        ("a/${PLACE}b", "a/{here}b"),
        ("./~x", "./~x"),
        ("a~b$", "a~b$"),
        ("made$NOWHERE/new", "made$NOWHERE/new"),
        ("made$NOWHERE", "made$NOWHERE"),
    ],
)
def test_a_path_is_expanded(given: str, meant: str, tmp_path: Path) -> None:
    Path("made$NOWHERE").mkdir()
    assert expanded(given) == meant.format(home=tmp_path / "home", here=tmp_path)
    assert as_path(given).absolute() == Path(expanded(given)).absolute()
    assert as_path(as_path(given)) == as_path(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("$NOWHERE/x", r"\$NOWHERE is not set: set it"),
        ("a/${NOWHERE}", r"\$\{NOWHERE\} is not set"),
        ("~nobody9/x", "there is no user ~nobody9: write ./~nobody9"),
        ("", "a path is '': name"),
        ("a\0b", r"a path is 'a\\x00b'"),
    ],
)
def test_a_path_that_cannot_be_is_refused(given: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        expanded(given)


def test_settings_expand_their_paths(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    config = retrain.RetrainConfig(genotype="~/g.json", init_from="~/r", out="~/o", data="folder", data_root="$PLACE/d")
    assert (config.genotype, config.init_from, config.out) == (f"{home}/g.json", f"{home}/r", f"{home}/o")
    assert config.data_root == f"{tmp_path}/d"
    assert SearchConfig(space="~/s.yaml").space == f"{home}/s.yaml" and SearchConfig(space="autodeeplab-li").out is None
    assert NetworkConfig(backbone_weights="~/w").backbone_weights == f"{home}/w"
    assert PictureConfig(image="~/i.png").image == f"{home}/i.png"
    with pytest.raises(ValueError, match=r"^out: the path .* \$NOWHERE is not set"):
        SearchConfig(out="$NOWHERE")


def test_paths_are_expanded_in_every_command_and_in_python(tmp_path: Path) -> None:
    home = tmp_path / "home"
    GENOTYPE.save("~/g.json")
    (home / "s.yaml").write_text(GENOTYPE.space.to_yaml())
    (home / "c.yaml").write_text("space: ~/none.yaml\nout: $PLACE/from-file\n")
    assert (
        load_genotype("~/g.json").to_json() == GENOTYPE.to_json() and search_spaces.load("~/s.yaml") == GENOTYPE.space
    )
    assert read_yaml("~/c.yaml")["out"] == "$PLACE/from-file"
    assert retrain.build("~/g.json", 2) is not None
    assert from_plain(SearchConfig, read_yaml("~/c.yaml")).out == f"{tmp_path}/from-file"
    assert f"no search space '{home}/none.yaml'" in refused("nas-search", "--config=~/c.yaml", "--quiet")
    assert command("nas-decode", "~/g.json", "-o=~/new.json", "--draw=~/cell.svg").code == 0
    assert (home / "new.json").is_file() and (home / "trellis.svg").is_file()
    assert command("nas-describe", "$PLACE/home/g.json", "--input=64x64").code == 0
    assert "out: the path '$NOWHERE'" in refused("nas-predict", "run", "x", "--out=$NOWHERE")
    assert "run: the path" in refused("nas-report", "~/g.json", "~nobody9")
    assert f"{home}/none" in refused("nas-data", "check", "folder", "~/none")
    (home / "sweep.yaml").write_text("command: search\nparameters: {optimizer.momentum: {range: [0.0, 0.9]}}\n")
    assert load_sweep("~/sweep.yaml").command == "search"
    assert not [path for path in tmp_path.rglob("*") if path.name[0] in "~$"]


# Text


def settings_file(folder: Path) -> Path:
    """Settings of a tiny training."""
    file = folder / "training.yaml"
    file.write_text(yaml.safe_dump(to_plain(training(folder, out=None))))
    return file


def test_control_characters_are_escaped_and_text_is_kept() -> None:
    assert printable("a\x1b[2J\r\x9b\u202eb\udcff") == r"a\x1b[2J\r\x9b\u202eb\udcff"
    assert printable("forêt\t日本\n🙂") == "forêt\t日本\n🙂"


def test_a_screen_that_cannot_encode_a_name_gets_it_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    from cli import common

    with pytest.raises(SystemExit) as stop:
        common.run("nas-test", lambda _: common.say("forêt \x1b[2J"), [])
    assert not stop.value.code and raw.getvalue() == rb"for\xeat \x1b[2J" + b"\n"


def test_an_error_does_not_steer_the_terminal() -> None:
    assert r"no-\x1b[2J" in refused("nas-decode", "no-\x1b[2J.json")


def test_a_run_in_a_folder_whose_name_the_screen_cannot_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    folder = tmp_path / "forêt \x1b[2J"
    train(training(tmp_path, out=str(folder)))
    assert rb"for\xeat \x1b[2J" in raw.getvalue() and b"\x1b" not in raw.getvalue()
    assert r"forêt \x1b[2J" in (folder / "log.txt").read_text(encoding="utf-8")
    monkeypatch.undo()
    wrong = tmp_path / os.fsdecode(b"for\xeat")
    said = refused("nas-retrain", "--config", settings_file(tmp_path), "--out", wrong, "--quiet")
    assert r"for\udceat is not UTF-8" in said
    assert command("nas-retrain", "--resume", folder, "--epochs=3", "--quiet").code == 0
    assert command("nas-report", folder).code == 0 and (folder / "report.html").is_file()


# Links


NAMES = (".lock", "log.txt", "metrics.jsonl", "genotypes.jsonl", "events.out.tfevents.1.host.1.0")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("there", [True, False])
def test_a_run_writes_through_no_link(name: str, there: bool, tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "target"
    run.mkdir()
    if there:
        target.write_text("mine")
    (run / name).symlink_to(target)
    with pytest.raises(RunError, match=f"{re.escape(name)} is a link"), claimed(run):
        RunFolder(run, searching(tmp_path), quiet=True)
    assert target.read_text() == "mine" if there else not target.exists()


def test_a_link_that_comes_later_is_not_followed_and_a_pipe_not_waited_for(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    with claimed(tmp_path / "run"), RunFolder(tmp_path / "run", searching(tmp_path), quiet=True) as run:
        (run.path / "metrics.jsonl").unlink()
        (run.path / "metrics.jsonl").symlink_to(target)
        with pytest.raises(ValueError, match="is a link"):
            run.append("metrics.jsonl", {"epoch": 0})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        open_own(tmp_path / "pipe")
    assert target.read_text() == "mine"


@pytest.mark.parametrize("what", ["pictures", "seed-0", "trial-0", "NAME", "NAME/seed-0", "journal.log", "study.db"])
def test_folders_of_a_run_are_no_links(what: str, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / what).parent.mkdir(parents=True)
    (out / what).symlink_to(elsewhere / ("x" if "." in what else ""))
    with pytest.raises(ValueError, match=f"{what} is a link"):
        if what == "pictures":
            (out / "config.yaml").write_text("command: nas-search\n")
            draw_pictures(out)
        elif what == "seed-0":
            search_seeds(searching(tmp_path), (0,), out, quiet=True)
        elif what == "trial-0":
            make_study(out)
        elif what.startswith("NAME"):
            rank(
                [str(GENOTYPE.save(tmp_path / "g.json"))], training(tmp_path), RankingConfig(random=1), out, quiet=True
            )
        else:
            open_storage("sqlite" if what == "study.db" else None, out)
    assert not list(elsewhere.iterdir())


# Folders that move


@pytest.mark.parametrize("fault", ["moved", "removed", "another"])
@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_a_run_whose_folder_moves_stops_and_makes_no_second_half(
    kind: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    start: Any = search if kind == "search" else train
    make: Any = searching if kind == "search" else training
    start(make(tmp_path, out=str(whole)), quiet=True)

    def move() -> None:
        run.rename(tmp_path / "moved")
        if fault == "another":
            run.mkdir()

    with monkeypatch.context() as patch, pytest.raises(MovedError, match="was moved or removed: stopped"):
        on_step(patch, 3, move)
        start(make(tmp_path), quiet=True)
    assert not run.exists() or not list(run.iterdir())
    if fault == "moved":
        assert command(f"nas-{kind}", "--resume", tmp_path / "moved", "--quiet").code == 0
        check_same_run(whole, tmp_path / "moved", kind)


def test_a_ranking_whose_folder_moves_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genotype, out = str(GENOTYPE.save(tmp_path / "g.json")), tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(MovedError):
        on_step(patch, 3, lambda: out.rename(tmp_path / "moved") and None)
        rank([genotype], training(tmp_path), RankingConfig(random=1, seeds=(0,)), out, quiet=True)
    assert not out.exists()


def test_the_lock_of_another_run_is_left_alone(tmp_path: Path) -> None:
    with claimed(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").mkdir()
        (tmp_path / "run/.lock").touch()
    assert (tmp_path / "run/.lock").exists()
    check = pinned(tmp_path / "run")
    check()


# Kills between the copy of a space or genotype and config.yaml


def test_what_a_killed_run_began_with_does_not_block_it(tmp_path: Path) -> None:
    config, text = searching(tmp_path), GENOTYPE.space.to_yaml()
    write_atomically(tmp_path / "run/space.yaml", text)
    assert new_folder(config, "x", {"space.yaml": text}) == tmp_path / "run"
    for copies in ({}, {"space.yaml": f"{text}\n"}):
        with pytest.raises(RunError, match=r"has a space\.yaml that no run there has written"):
            new_folder(config, "x", copies)


@pytest.mark.parametrize("name", FILES)
def test_no_file_that_a_run_would_write_is_taken_over(name: str, tmp_path: Path) -> None:
    write_atomically(tmp_path / "run" / name, "mine")
    with pytest.raises(RunError, match=f"has a {re.escape(name)} that no run"):
        new_folder(searching(tmp_path), "x")


def killed_before_settings(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
    def write(path: Path, content: Any) -> Any:
        return kill() if path.name == "config.yaml" else write_atomically(path, content)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(nas.runs.folder, "write_atomically", write)
        call()


def test_seeds_and_rankings_go_on_after_a_kill_before_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seeds() -> object:
        return search_seeds(searching(tmp_path, epochs=1), (0,), tmp_path / "seeds", quiet=True)

    def ranked(out: str = "ranked") -> Any:
        genotype = str(GENOTYPE.save(tmp_path / "g.json"))
        config = training(tmp_path, epochs=1, out=None)
        return rank([genotype], config, RankingConfig(random=1, seeds=(0,)), tmp_path / out, quiet=True)

    killed_before_settings(monkeypatch, seeds)
    assert (tmp_path / "seeds/seed-0/space.yaml").exists() and not (tmp_path / "seeds/seed-0/config.yaml").exists()
    seeds()
    killed_before_settings(monkeypatch, ranked)
    copies = list((tmp_path / "ranked").glob("*/seed-0/genotype.json"))
    assert len(copies) == 1 and not copies[0].with_name("config.yaml").exists()
    (tmp_path / "ranked" / "random-0").mkdir(exist_ok=True)  # and one killed just before its genotype was written
    found = ranked()
    assert [entry.mious for entry in found.entries] == [entry.mious for entry in ranked("whole").entries]
    names = sorted(path.name for path in (tmp_path / "ranked").iterdir() if path.is_dir())
    assert not [name for name in names if name.endswith("-2")]


# Signals, the demo


@pytest.fixture
def heeded() -> Iterator[None]:
    """SIGHUP is not ignored, as it would be if the tests themselves ran under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heeded")
def test_a_closed_terminal_saves_as_sigterm_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(training(tmp_path, out=str(tmp_path / "whole")), quiet=True).folder
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match="stopped and saved"):
        on_step(patch, 2, lambda: interrupt(signal.SIGHUP))
        train(training(tmp_path), quiet=True)
    train(training(tmp_path), tmp_path / "run", quiet=True)
    check_same_run(whole, tmp_path / "run", "retrain")


@pytest.mark.usefixtures("heeded")
def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stopping_signals()
        with Interruption() as interruption:
            interrupt(signal.SIGHUP)
            assert not interruption.requested
        assert called("nas-test", lambda _: interrupt(signal.SIGHUP)).code == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert called("nas-test", lambda _: interrupt(signal.SIGHUP)).code == 130


def test_the_demo_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain.demo, "_train_all", lambda configs, say: [(1, 0.5)] * len(configs))
    monkeypatch.setattr(retrain.demo, "_draw_predictions", lambda contestants, file: file)
    whole = search(searching(tmp_path, out=str(tmp_path / "whole")), quiet=True).folder

    def demo() -> object:
        return retrain.demo.demo(tmp_path / "demo", searching(tmp_path), training(tmp_path), 1, lambda line: None)

    with monkeypatch.context() as patch, pytest.raises(InterruptedRun):
        on_step(patch, 3, interrupt)
        demo()
    for _ in range(2):
        demo()
        check_same_run(whole, tmp_path / "demo/search", "search")
    (tmp_path / "demo/random-1.json").write_text("mine")
    with pytest.raises(ValueError, match=r"random-1\.json is there already, and was not written by this toolkit"):
        demo()
    assert recipe("small") is not None


# Temporary files


def test_what_killed_commands_left_is_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_spaces.files, "_CLEANED", set())
    dead, folder = tmp_path / ".x.png.0123abcd.nas.tmp", tmp_path / ".m.onnx.0123abce.nas.tmp"
    dead.write_bytes(b"half")
    folder.mkdir()
    (folder / "m.onnx").write_bytes(b"half")
    kept = [tmp_path / name for name in (".x.tmp", ".x.png.0123abcd.tmp", "x.0123abcd.nas.tmp", "x.nas.tmp")]
    for path in kept:
        path.write_bytes(b"mine")
    link = tmp_path / ".link.01234567.nas.tmp"
    link.symlink_to(kept[0])
    alive = tmp_path / ".y.0123abcd.nas.tmp"
    with alive.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(tmp_path / "new.txt", "new")
        assert alive.exists() and link.is_symlink() and all(path.read_bytes() == b"mine" for path in kept)
    assert not dead.exists() and not folder.exists()


@pytest.mark.parametrize("folder", [True, False])
def test_a_temporary_file_is_taken_for_left_only_when_its_process_is_dead(
    folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_beside(tmp_path / ("n" * 255), folder) as temporary:
        for _ in range(2):
            monkeypatch.setattr(search_spaces.files, "_CLEANED", set())
            write_atomically(tmp_path / "other", "x")
        assert temporary.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_temporary_file_that_another_process_takes_for_left_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    lock = search_spaces.files._lock

    def taken(path: Path) -> int:
        seen.append(path)
        if len(seen) == 1:
            raise BlockingIOError
        if len(seen) == 2:
            path.unlink()
        return lock(path)

    monkeypatch.setattr(search_spaces.files, "_lock", taken)
    assert write_atomically(tmp_path / "x", "new").read_text() == "new" and len(seen) == 3


# Passwords


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:secret@host/db", "postgresql://u@host/db"),
        ("postgresql+psycopg://u:se/cr:et@host:5/db?a=1", "postgresql+psycopg://u@host:5/db?a=1"),
        ("postgresql://u:sec@ret@host/db", "postgresql://u@host/db"),
        ("postgresql://u@host/db", "postgresql://u@host/db"),
        ("postgresql://host/db?user=u&password=secret&x=1", "postgresql://host/db?user=u&password=...&x=1"),
        ("u:secret@host", "...@host"),
        ("$ADDRESS", "postgresql://u@host/db"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("runs/journal.log", "runs/journal.log"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDRESS", "postgresql://u:secret@host/db")
    assert without_password(address) == shown
    for name in ("nas-sweep", "nas-report"):
        where = ("report", "study") if name == "nas-sweep" else ("study",)
        assert "secret" not in refused(name, *where, "--storage", address)


@pytest.mark.parametrize(
    "address", ["mysql://u:secret@host/db", "u:secret@host", "postgresql://u:secret@127.0.0.1:1/d"]
)
def test_a_password_is_in_no_message(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refusal:
        open_storage(address, tmp_path)
    assert "secret" not in str(refusal.value)


def test_a_password_is_in_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_report import study_folder

    study = study_folder(tmp_path / "study", 2)
    monkeypatch.setattr(retrain.sweeps.study, "open_storage", lambda _, folder: open_storage("journal", folder))
    page = write_report([study], storage="postgresql://u:secret@host/db", study="study").read_text()
    assert "secret" not in page and "--storage postgresql://u@host/db" in page


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_password_is_not_among_the_words_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "shows.py").write_text("print(open('/proc/self/cmdline').read())\n")
    words = [sys.executable, "-m", "cli.report", "study", "--storage", "postgresql://u:secret@host/db"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NAS_EXTENSIONS": str(tmp_path / "shows.py")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "cli.report" in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr and "$NAS_STORAGE" in done.stdout


# Files of others


def test_marks_are_found_at_either_end_and_others_are_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for content in (b"", b"other", bytes(300_000) + MARK.encode() + bytes(300_000)):
        mine.write_bytes(content)
        with pytest.raises(ValueError, match="mine is there already, and was not written by"):
            check_replaceable([tmp_path / "missing", mine])
    for content in (MARK.encode() + bytes(300_000), bytes(300_000) + MARK.encode()):
        mine.write_bytes(content)
        check_replaceable([mine])
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(ValueError, match="dangling is there already"):
        check_replaceable([tmp_path / "dangling"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on files, whose labels a prediction could replace."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for part in ("images", "labels"):
            (folder / "data" / part / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"data/images/{split}/{number}.png")
            Image.fromarray(pixels[..., 0] % 3).save(folder / f"data/labels/{split}/{number}.png")
    (folder / "data/classes.txt").write_text("a\nb\nc\n")
    return train(training(folder, data="folder", data_root=str(folder / "data"), epochs=1), quiet=True).folder


def test_predictions_replace_predictions_only(trained: Path, tmp_path: Path) -> None:
    images, labels = trained.parent / "data/images/val", trained.parent / "data/labels/val"
    before = {path: path.read_bytes() for path in labels.iterdir()}
    for options in ([], ["--overwrite"]):
        said = refused("nas-predict", trained, images, "--out", labels, *options)
        assert f"{labels / '0.png'} is there already" in said
    assert "is in the run's data set" in refused("nas-predict", trained, images, "--out", labels, "--overwrite")
    assert before == {path: path.read_bytes() for path in labels.iterdir()}
    out = tmp_path / "out"
    for _ in range(2):  # its own are replaced
        assert command("nas-predict", trained, images, "--out", out, "--probabilities").code == 0
    (out / "1.npz").write_bytes(b"mine")
    assert "1.npz is there already" in refused("nas-predict", trained, images, "--out", out, "--probabilities")
    assert command("nas-predict", trained, images, "--out", out, "--probabilities", "--overwrite").code == 0
    with pytest.raises(MovedError):
        moving(out, lambda: predict(trained, images, out, device="cpu"))


def moving(folder: Path, call: Callable[[], object]) -> None:
    """Calls, and moves the folder when the first picture is written."""
    with pytest.MonkeyPatch.context() as patch:
        real = retrain.prediction._write

        def write(*arguments: Any) -> None:
            real(*arguments)
            folder.rename(folder.with_name("moved"))

        patch.setattr(retrain.prediction, "_write", write)
        call()


WRITERS: dict[str, tuple[str, ...]] = {
    "report.html": ("nas-report", "{run}", "--out"),
    "cell.svg": ("nas-draw", "{run}", "--what=cell", "--out"),
    "cell.png": ("nas-decode", "{run}/genotype.json", "--draw"),
    "new.json": ("nas-decode", "{run}/genotype.json", "--output"),
    "sheet.png": ("nas-data", "check", "folder", "{data}", "--contact-sheet"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_others_are_replaced_only_when_asked(name: str, trained: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    words = [word.format(run=trained, data=trained.parent / "data") for word in WRITERS[name]]
    file.write_text("mine")
    assert f"{file} is there already" in refused(*words, file) and file.read_text() == "mine"
    assert command(*words, file, "--overwrite").code == 0
    first = file.read_bytes()
    assert command(*words, file).code == 0 and first  # its own, again


def test_an_export_replaces_exports_only(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "m.onnx"
    for there in (file, tmp_path / "m.onnx.json"):
        there.write_text("mine")
        assert f"{there} is there already" in refused("nas-export", trained, "--onnx", file)
        there.unlink()


def test_a_sweep_does_not_replace_the_sweep_of_its_user(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        yaml.safe_dump({"command": "search", "parameters": {"optimizer.momentum": {"range": [0.0, 0.9]}}})
    )
    before = (tmp_path / "sweep.yaml").read_text()
    said = refused("nas-sweep", tmp_path / "sweep.yaml", "--out", tmp_path)
    assert "sweep.yaml is there already" in said and (tmp_path / "sweep.yaml").read_text() == before


def test_a_ranking_does_not_replace_what_is_none(tmp_path: Path) -> None:
    write_atomically(tmp_path / "out/ranking.json", "mine")
    genotype = str(GENOTYPE.save(tmp_path / "g.json"))
    with pytest.raises(RunError, match=r"ranking\.json was not written by a ranking there"), contextlib.ExitStack():
        rank([genotype], training(tmp_path), RankingConfig(random=1), tmp_path / "out", quiet=True)
