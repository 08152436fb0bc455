"""nas-report: one file, that needs nothing else, safe whatever stands in a run, and small however long it was."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from folders import retrain_folder, search_folder
from retrain.report import read_run, write_report
from retrain.report.curves import MOST_RUNS, draw_curves
from retrain.report.gallery import Album
from retrain.report.markup import Markup, element, text
from retrain.report.page import commands
from retrain.report.runs import different_settings, duration, read_runs
from retrain.report.series import read_series, thinned
from sweep_workers import make_study, value_of

SCRIPT = "<script>alert('&amp;')</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """Collects the elements of a page, and checks that those that need an end have one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def change_settings(run: Path, **changes: object) -> None:
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A search and a retraining, with a picture that nas-draw left."""
    folder = tmp_path_factory.mktemp("runs")
    found = [search_folder(folder / "searched"), retrain_folder(folder / "trained")]
    (found[1] / "pictures").mkdir()
    Image.new("RGB", (3000, 20), "red").save(found[1] / "pictures" / "heat.png")
    return found


def study_folder(path: Path, trials: int = 9, **config: Any) -> Path:
    """A study of a search, whose trials only pretend to train."""
    path.mkdir(parents=True)
    sweep = {
        "command": "search",
        "trials": max(trials, 1),
        "parameters": {
            "optimizer.lr": {"range": [0.001, 1.0], "log": True},
            "optimizer.momentum": {"range": [0.0, 0.9]},
        },
        **config,
    }
    (path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    study = make_study(path, trials=max(trials, 1), **config)
    several = len(study.config.objectives) > 1
    if trials:
        study.work(lambda trial: [value_of(trial.config), 1e6 * trial.config.optimizer.lr][: 1 + several])
    return path


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A study of one objective and one of two."""
    folder = tmp_path_factory.mktemp("studies")
    several = {"objectives": ["miou", "multiply_adds"], "sampler": "random"}
    return [study_folder(folder / "single"), study_folder(folder / "several", 5, **several)]


# The page


def test_one_run_is_reported_in_its_folder(tmp_path: Path) -> None:
    run = search_folder(tmp_path / "my run")
    path = write_report([run])
    assert path == run / "report.html"
    page = read(path)
    assert len(page.all("img")) == 3  # trellis, cell, history
    assert len(page.all("svg")) == 4  # loss, validation, learning rate, seconds
    for words in ("3 of 40", "20.00 % (epoch 3)", "3 min 03 s", "block2", "All settings", "architecture.start_epoch"):
        assert words in page.words
    assert f"nas-search --config '{run}/config.yaml' --out '{tmp_path}/my run-again'" in page.words
    assert f"nas-search --resume '{run}'" in page.words


def test_nothing_is_loaded_or_run(runs: list[Path], tmp_path: Path) -> None:
    page = read(write_report(runs, tmp_path / "report.html"))
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.found}
    for tag, attributes in page.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")), (tag, value[:80])
    source = (tmp_path / "report.html").read_text()
    assert "@import" not in source
    assert not re.findall(r"url\((?!#)", source)
    assert page.all("meta")[1]["content"].startswith("default-src 'none'")


def test_every_picture_is_described_and_every_section_is_linked(runs: list[Path], tmp_path: Path) -> None:
    page = read(write_report(runs, tmp_path / "report.html"))
    assert all(len(image["alt"] or "") > 10 for image in page.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert page.all("html") == [{"lang": "en"}]
    headings = {attributes["id"] for attributes in page.all("h2")}
    assert {f"#{name}" for name in headings} == {link["href"] for link in page.all("a")}
    assert headings == {"overview", "curves", "pictures", "classes", "run0", "run1"}
    identifiers = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_runs_stand_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    page = read(write_report(runs, tmp_path / "report.html"))
    assert "searched" in page.words and "trained" in page.words
    assert "87.50" in page.words and "--" in page.words  # road, sky
    assert "Settings that differ" in page.words
    assert len(page.all("svg")) == 5  # a picture for both runs, not one each; the modules' is the retraining's
    assert "Probability of classes over an image" in page.words  # what nas-draw left


def test_the_networks_see_an_image(runs: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "green").save(tmp_path / "image.png")
    page = read(write_report(runs[1:], tmp_path / "report.html", tmp_path / "image.png"))
    for words in ("Features before and after", "Probability of classes", "Effective receptive field"):
        assert words in page.words
    with pytest.raises(ValueError, match="nothing"):
        write_report(runs[1:], tmp_path / "report.html", tmp_path / "nothing.png")


def test_an_image_that_no_network_sees_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no run of nas-retrain is there to see x\.png: leave --image out"):
        write_report(runs[:1], tmp_path / "report.html", "x.png")


@pytest.mark.parametrize("side", [300, 900])
def test_the_colour_of_a_small_square_stays_its_own(side: int, tmp_path: Path) -> None:
    noise = Image.effect_noise((side, side), 90).convert("RGB")
    noise.paste((222, 60, 50), (10, 10, 16, 16))
    noise.save(tmp_path / "classes.png")
    address = Album().file(tmp_path / "classes.png")
    assert address.startswith("data:image/png" if side == 300 else "data:image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        color = image.convert("RGB").getpixel((13, 13))
    assert isinstance(color, tuple)
    assert max(abs(a - b) for a, b in zip(color, (222, 60, 50), strict=True)) <= 16


# Studies


def test_a_study_is_reported_in_its_folder(studies: list[Path]) -> None:
    single, _ = studies
    path = write_report([single])
    assert path == single / "report.html"
    page = read(path)
    assert [image["alt"].rpartition(", of study ")[2] for image in page.all("img") if image["alt"]] == ["single"] * 4
    for words in ("9 complete", "The best trial", "optimizer.lr", "Importances in numbers", "nas-search --config"):
        assert words in page.words
    assert f"nas-sweep {single}/sweep.yaml --out {single} --trials 18" in page.words
    assert f"nas-report {single}/trial-" in page.words
    rows = re.findall(r'<th scope="row">(\d+)</th><td class="number">([\d.]+) %', path.read_text())
    assert sorted(int(number) for number, _ in rows) == list(range(9))
    values = [float(value) for _, value in rows]
    assert values == sorted(values, reverse=True) and f"Trial {rows[0][0]}: val mIoU {values[0]:.2f} %" in page.words
    assert not page.all("script") and {"overview", "study0"} == {heading["id"] for heading in page.all("h2")}


def test_studies_and_runs_stand_in_one_report(studies: list[Path], runs: list[Path], tmp_path: Path) -> None:
    page = read(write_report([studies[0], runs[0], studies[1]], tmp_path / "report.html"))
    headings = {heading["id"] for heading in page.all("h2")}
    assert {"overview", "curves", "run0", "study0", "study1"} <= headings
    assert "study of nas-search" in page.words and "Pareto front" in page.words
    assert sum("of study several" in (image["alt"] or "") for image in page.all("img")) >= 4  # pareto among them
    identifiers = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_a_study_without_a_complete_trial_has_a_page(tmp_path: Path) -> None:
    study = study_folder(tmp_path / "study", trials=0)
    page = read(write_report([study]))
    assert "No trial is complete yet." in page.words and page.all("img") == []
    assert "no trials" in page.words and "best.yaml" not in page.words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello\nworld\n", r"journal\.log, line 1: it is broken .*: take a whole copy, or remove that line"),
        ('{"a": 1}\n', r"journal\.log cannot be read as a study's storage"),
        ("", "the storage has no study 'study'"),
        (None, r"has no journal\.log and no study\.db: the study is elsewhere; give --storage"),
    ],
)
def test_a_study_that_cannot_be_read_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    study = study_folder(tmp_path / "study", trials=0)
    (study / "journal.log").unlink()
    if content is not None:
        (study / "journal.log").write_text(content)
    with pytest.raises(ValueError, match=message) as refusal:
        write_report([study])
    assert "\n" not in str(refusal.value) and not (study / "report.html").exists()


def test_a_study_kept_elsewhere_is_named(studies: list[Path], runs: list[Path], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(studies[0] / "sweep.yaml", moved)
    journal = str(studies[0] / "journal.log")
    page = read(write_report([moved], storage=journal, study="study"))
    assert f"--storage {journal} --study study" in page.words
    with pytest.raises(ValueError, match="--storage is of one study, but there are 0 among the folders"):
        write_report(runs, tmp_path / "x.html", storage=journal)
    with pytest.raises(ValueError, match="--storage and --study is of one study, but there are 2"):
        write_report(studies, tmp_path / "x.html", storage=journal, study="study")


# A stranger's text


def test_all_text_is_escaped(tmp_path: Path) -> None:
    run = retrain_folder(tmp_path / "<script>alert(1)<")
    search = search_folder(tmp_path / "'\"><img src=x onerror=alert(1)>")
    change_settings(run, data=SCRIPT, **{SCRIPT: 'x" onload="alert(1)'})
    line = {"epoch": 2, SCRIPT: {SCRIPT: 1.0, "other": 2.0}, "val": {"miou": 0.1}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    evaluation = {"miou": 0.5, "iou": {SCRIPT: 0.5}}
    (run / f"evaluation-{SCRIPT.replace('/', '')}.json").write_text(json.dumps(evaluation))
    (run / "evaluation-broken.json").write_text(SCRIPT)
    genotype = json.loads((search / "genotype.json").read_text())
    genotype["space"]["name"] = f"{SCRIPT}\x1b]]>"
    genotype["provenance"] = {SCRIPT: SCRIPT}
    (search / "genotype.json").write_text(json.dumps(genotype))
    page = read(write_report([run, search], tmp_path / "report.html"))
    assert page.all("script") == []
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    assert all(not name.startswith("on") for _, attributes in page.found for name in attributes)
    assert page.words.count(SCRIPT) >= 4
    assert "\x1b" not in page.words


def test_markup_is_escaped_once() -> None:
    piece = element("td", "a < b", element("b", "&"), class_="x", title='"')
    assert piece == '<td class="x" title="&quot;">a &lt; b<b>&amp;</b></td>'
    assert text(piece) is piece and isinstance(text("x\x00\u202e"), Markup) and text("x\x00\u202e") == "x"


# Runs that are not whole


def test_a_run_without_an_epoch_has_a_page(tmp_path: Path) -> None:
    page = read(write_report([search_folder(tmp_path / "run", epochs=0)]))
    assert "none yet" in page.words and "No epoch is recorded yet." in page.words
    assert page.all("img") == page.all("svg") == []


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    run = search_folder(tmp_path / "run")
    (run / "genotype.json").write_text("{")
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe")
    (run / "evaluation-a.json").write_text("[]")
    (run / "evaluation-b.json").write_text('{"miou": NaN, "iou": {}}')
    (run / "pictures").mkdir()
    (run / "pictures" / "heat.png").write_text("no picture")
    (run / "pictures" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40)
    page = read(write_report([run]))
    (run / "metrics.jsonl").write_text(json.dumps({"epoch": 0, "val": {"miou": 10**400}, "seconds": float("nan")}))
    assert "1 of 40" in read(write_report([run])).words
    for words in ("genotype.json: not valid JSON", "No epoch is recorded yet.", "evaluation-a.json", "heat of run"):
        assert words in page.words
    assert page.words.count("it has no miou and iou") == 2 and "bomb of run" in page.words


def test_strange_numbers_are_no_curves() -> None:
    lines = [
        {"epoch": 0, "loss": float("nan"), "val": {"miou": float("inf"), "ok": True}, "lr": "0.1", "big": 10**400},
        {"epoch": 1, "loss": 0.5, "deep": {"a": {"b": 1}}, "modules": {"x/mean": 1.0, "y/mean": 3.0}},
    ]
    lines.append({"epoch": 2, "health": {"skip": 0.1, "decoded_skips": 2, "gap": 0.3, "new": 4}})
    found: dict[str, Any] = {"loss": {"": [(2, 0.5)]}, "deep": {"a/b": [(2, 1.0)]}, "modules": {"mean": [(2, 2.0)]}}
    found |= {"health": {"skip": [(3, 0.1)], "new": [(3, 4.0)]}, "health counts": {"decoded_skips": [(3, 2.0)]}}
    assert read_series(lines) == found | {"health forced": {"gap": [(3, 0.3)]}}


@pytest.mark.parametrize("content", ["- 1\n", "{", "\x00"])
def test_what_is_no_run_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder"):
        write_report([tmp_path])
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml"):
        write_report([tmp_path])


def test_wrong_runs_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="given twice"):
        write_report([runs[0], runs[0] / "."])
    with pytest.raises(ValueError, match=f"give up to {MOST_RUNS}"):
        write_report([runs[0]] * (MOST_RUNS + 1))
    with pytest.raises(ValueError, match="is a folder"):
        write_report(runs, tmp_path)


# Size


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    run = search_folder(tmp_path / "run", epochs=1)
    line = json.loads((run / "metrics.jsonl").read_text())
    with (run / "metrics.jsonl").open("w") as file:
        for epoch in range(20_000):
            file.write(json.dumps({**line, "epoch": epoch, "val": {"miou": epoch % 97 / 100}}) + "\n")
    (run / "pictures").mkdir()
    for number in range(20):
        Image.new("RGB", (30, 30)).save(run / "pictures" / f"picture{number:02}.png")
    path = write_report([run])
    assert path.stat().st_size < 1_000_000
    assert "more than 12 pictures" in read(path).words


def test_pictures_are_shrunk_and_end_with_the_room(tmp_path: Path) -> None:
    Image.effect_noise((2000, 100), 90).save(tmp_path / "noise.png")
    room = 2 * len(Album().file(tmp_path / "noise.png")) - 1
    album = Album(room=room)
    address = album.file(tmp_path / "noise.png")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        assert image.size == (1600, 80)
    assert album.room == room - len(address) < len(address)
    with pytest.raises(ValueError, match="the report is full"):
        album.file(tmp_path / "noise.png")


def test_thin_curves_keep_their_peaks() -> None:
    curve = [(epoch, float(epoch == 777) - float(epoch == 5000)) for epoch in range(10_000)]
    thin = thinned(curve, 100)
    assert len(thin) <= 102 and thin == sorted(set(thin))
    assert {(777, 1.0), (5000, -1.0), curve[0], curve[-1]} <= set(thin)
    assert thinned(curve[:100], 100) == curve[:100]


def test_as_many_runs_as_there_are_styles() -> None:
    series = [{"loss": {"x": [(1, float(run)), (2, 1.0)]}} for run in range(MOST_RUNS)]
    ((title, svg),) = draw_curves(series)
    assert title == "loss" and len(svg) < 100_000
    assert svg.count("#010203") == 0 and "currentColor" in svg


# Parts


def test_settings_that_differ(tmp_path: Path) -> None:
    first, second, third = (search_folder(tmp_path / name, epochs=0) for name in ("a", "b", "c"))
    change_settings(second, seed=7)
    old = yaml.safe_load((third / "config.yaml").read_text())
    del old["precision"]  # removed by hand
    (third / "config.yaml").write_text(yaml.safe_dump(old))
    found = read_runs([first, second, third])
    assert different_settings(found) == ["seed"]
    assert different_settings(found[:1]) == []


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [search_folder(tmp_path / parent / "run", epochs=0) for parent in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == ["run", "run (2)"]


def test_commands_of_a_retraining(runs: list[Path]) -> None:
    lines = [line for line, _ in commands(read_run(runs[1]))]
    assert [line.split()[0] for line in lines] == [
        *("nas-retrain", "nas-retrain", "nas-evaluate", "nas-predict", "nas-draw")
    ]


@pytest.mark.parametrize(("seconds", "words"), [(12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# In a browser


Browse = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Opens a file in headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")

    def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", *options, page.as_uri()]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)

    return browse


def test_a_browser_shows_all_of_it_without_an_error(runs: list[Path], tmp_path: Path, browse: Browse) -> None:
    path = write_report(runs, tmp_path / "report.html")
    done = browse(path, "--window-size=1200,3000", f"--screenshot={tmp_path / 'screenshot.png'}")
    assert ":CONSOLE" not in done.stderr
    with Image.open(tmp_path / "screenshot.png") as screenshot:
        colors = screenshot.convert("RGB").getcolors(maxcolors=2**24)
    assert colors is not None and len(colors) > 50

    # The page itself may run nothing: a copy without that rule is asked how wide its pictures came out.
    measure = (
        "<script>onload = () => { document.title = JSON.stringify({"
        "images: [...document.images].map(i => i.naturalWidth), "
        "curves: [...document.querySelectorAll('svg')].map(s => Math.round(s.getBBox().width)), "
        "wide: document.documentElement.scrollWidth - innerWidth}) }</script></body>"
    )
    copy = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text()).replace("</body>", measure)
    (tmp_path / "copy.html").write_text(copy)
    page = browse(tmp_path / "copy.html", "--window-size=600,900", "--dump-dom").stdout
    found = re.search(r"<title>(\{.*?\})</title>", page)
    assert found is not None
    measured = json.loads(html.unescape(found[1]))
    assert len(measured["images"]) == 5 and min(measured["images"]) > 100
    assert len(measured["curves"]) == 5 and min(measured["curves"]) > 100
    assert measured["wide"] <= 0  # nothing sticks out of a small window


def test_a_browser_would_tell_of_an_error(tmp_path: Path, browse: Browse) -> None:
    (tmp_path / "page.html").write_text("<script>missing()</script>")
    assert ":CONSOLE" in browse(tmp_path / "page.html", "--dump-dom").stderr
