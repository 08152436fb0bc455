"""nas-demo: the whole chain on the built-in data set."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

from cli import common

DESCRIPTION = """\
Runs the whole chain on the built-in data set `shapes` in under four minutes on two CPU cores: searches the space
autodeeplab-tiny, decodes and draws the genotype, retrains it, measures it on the test split, and compares it with
random genotypes of the same space, trained alike."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-demo", DESCRIPTION)
    parser.add_optional("--out", "Folder for all runs, to continue those there; a new one under runs/ if not given.")
    seed_help = "Seed of the search and of every training; the random genotypes are the same for all."
    parser.add_argument("--seed", type=int, default=0, help=seed_help)
    parser.add_argument("--randoms", type=int, default=3, help="Number of random genotypes for comparison, at least 1.")
    return parser


def main(arguments: list[str]) -> None:
    values = common.parse(make_parser(), arguments)
    if values.randoms < 1:
        raise ValueError(f"--randoms is {values.randoms}: give at least 1")
    out = Path(values.out) if values.out is not None else _free_folder()
    if out.is_file():
        raise ValueError(f"{out} is a file: choose another --out")

    from nas.config import ArchitectureConfig, recipe
    from retrain.config import recipe as retrain_recipe
    from retrain.demo import demo
    from search_spaces.text import cell_table, path_trellis

    search = replace(
        recipe("small"),
        space="autodeeplab-tiny",
        epochs=5,
        architecture=ArchitectureConfig(lr=0.02, start_epoch=1),
        seed=values.seed,
        device="cpu",
    )
    retrain = replace(retrain_recipe("small"), seed=values.seed, device="cpu")
    try:
        result = demo(out, search, retrain, values.randoms, common.say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; nas-demo --out {out}, with the same options, continues") from None
    genotype = result.searched.genotype
    common.say(f"\n{cell_table(genotype)}", path_trellis(genotype), result.table(), "", sep="\n\n", end="")
    common.say(f"genotype {out / 'search' / 'genotype.json'}, with pictures cell.svg and trellis.svg next to it")
    common.say(f"test images, labels and predictions side by side: {result.picture}")
    common.say(f"next: nas-evaluate {result.searched.folder} --split test, or tensorboard --logdir {out}")


def _free_folder() -> Path:
    return next(folder for n in count(1) if not (folder := Path("runs") / f"demo-{n}").exists())


entry = common.command("nas-demo", main)

if __name__ == "__main__":
    entry()
