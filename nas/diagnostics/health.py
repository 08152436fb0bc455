"""The health of a search: numbers about alpha and beta after each epoch, and warnings with remedies.

The memory of earlier epochs is in plain containers, which a checkpoint keeps.

Shapes: alpha [E, O], probabilities of O operations on E edges; beta [layers, levels, 3], as in `Genotype.beta`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nas.config import HealthConfig, SearchConfig
from nas.data.base import SegmentationDataset
from nas.diagnostics.curvature import architecture_eigenvalue
from nas.diagnostics.discretization import forced_matrix, part_batches
from nas.supernet.network import Supernet
from nas.supernet.penalties import architecture_cost
from nas.training.distributed import Processes
from nas.training.step import Stepper
from search_spaces.genotype import Block, Genotype
from search_spaces.operations import NONE, SKIP
from search_spaces.space import SearchSpace
from search_spaces.validation import counted

__all__ = [
    "Checkup",
    "agreement",
    "examine",
    "is_collapsing",
    "reason_to_stop",
    "relative_entropy",
    "relaxed_numbers",
    "remembered",
    "too_few_steps",
    "verdict",
    "warnings_of",
    "with_eigenvalue",
]


UNMOVED = 0.9999
"""Relative entropy of alpha above which it has learned nothing yet, and its preferences are the initial noise: for 8
operations, logits with a spread below 0.02; initially it is 0.001."""
COLLAPSED = 0.5
"""Share of the edges that prefer skip from which a search counts as collapsing. When DARTS fails, skip wins nearly
everywhere (Zela et al., "Understanding and robustifying differentiable architecture search", 2020; Chu et al., "Fair
DARTS", 2020). Half is far above one in O, the share by chance, and leaves time to act."""
MANY_SKIPS = 0.25
"""Share of skips in a decoded cell above which there is a warning: DARTS+ (Liang et al., 2019) stops when two or more
of a cell's eight operations are skip."""
EMPTY = 0.5
"""Share of the edges that prefer none above which there is a warning: none is never decoded (as in DARTS), so the
decoded operations are then mostly those that the supernet learned to do without."""
LATE = 0.75
"""Share of the epochs in which alpha learns after which it should be decided."""
UNDECIDED = 0.95
"""Relative entropy of alpha above which operations are too close to distinguish (the discretization discrepancy of Fair
DARTS). For 8 operations: a likeliest one of at most 0.26, the others alike."""
UNSTABLE = 0.5
"""Share of the decoded cell that must stay from one epoch to the next, late in a search."""
LOST = 0.5
"""Share of the supernet's mIoU lost by discretisation above which there is a warning: such a supernet tells little of
the decoded network (Tian et al., "Discretization-aware architecture search", 2020)."""
FEW_STEPS = 200
"""Steps of alpha and beta, or of sampled networks, below which a search is told before it starts that they are few."""
EIGENVALUES_AGO, SHARPENING = 5, 4 / 3
"""Epochs between compared eigenvalues, and the largest healthy growth: Zela et al. (2020) end a search when the earlier
eigenvalue, both smoothed over epochs, is below 0.75 of the later one."""


def relative_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of distributions [..., n] over that of the uniform one, [...]: 1 = uniform, 0 = decided (or n = 1)."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape[-1] == 1:
        return np.zeros(p.shape[:-1])
    terms = p * np.log(np.where(p > 0, p, 1.0))  # 0 log 0 = 0
    return np.abs(terms.sum(axis=-1)) / np.log(p.shape[-1])


def relaxed_numbers(space: SearchSpace, alpha: np.ndarray, beta: np.ndarray) -> dict[str, float]:
    """Numbers about alpha and beta alone.

    Returns:
        `alpha_entropy`, mean relative entropy of the edges; `beta_entropy`, of the nodes with two or more outgoing
        transitions, if there are any; where the space has the operation, `skip` and `none`, mean probabilities, and
        `edges_prefer_skip` (the likeliest other than none, which is what decoding looks at) and `edges_prefer_none`.
    """
    numbers = {"alpha_entropy": float(relative_entropy(alpha).mean())}
    choices = []
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            steps = [target - level + 1 for target in space.transitions(layer, level)]
            if len(steps) > 1:
                choices.append(float(relative_entropy(beta[layer, level, steps])))
    if choices:
        numbers["beta_entropy"] = float(np.mean(choices))
    names = list(space.operations)
    connecting = [column for column, name in enumerate(names) if name != NONE]
    likeliest = np.array(connecting)[alpha[:, connecting].argmax(axis=1)]  # [E]
    for name, preferred in ((SKIP, likeliest), (NONE, alpha.argmax(axis=1))):
        if name in names:
            numbers[name] = float(alpha[:, names.index(name)].mean())
            numbers[f"edges_prefer_{name}"] = int((preferred == names.index(name)).sum())
    return numbers


def agreement(genotype: Genotype, before: Mapping[str, Any]) -> dict[str, float]:
    """The shares of (input, operation) pairs and of path entries that a genotype has kept.

    Args:
        genotype: This epoch's.
        before: Result of `remembered` for the previous epoch.
    """
    equal = 0
    for block, pairs in zip(genotype.cell, before["cell"], strict=True):
        equal += (Counter(_pairs(block)) & Counter(map(tuple, pairs))).total()
    same = [stride == other for stride, other in zip(genotype.path, before["path"], strict=True)]
    return {"cell_agreement": equal / (2 * len(genotype.cell)), "path_agreement": sum(same) / len(same)}


def remembered(genotype: Genotype) -> dict[str, Any]:
    """The memory of a genotype for the next epoch, in plain containers."""
    return {"cell": [list(map(list, _pairs(block))) for block in genotype.cell], "path": list(genotype.path)}


def examine(genotype: Genotype, before: Mapping[str, Any], learns: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """An epoch's numbers, and the memory for the next epoch.

    Args:
        genotype: Decoded after the epoch, with its alpha and beta.
        before: The memory of the previous epoch; empty at the first one.
        learns: Whether alpha and beta learned in the epoch.

    Returns:
        (numbers, memory). The numbers are those of `relaxed_numbers` and, from the second epoch on, of `agreement`;
        `decoded_skips`, the number of skips in the decoded cell; `stable_epochs`, the number of epochs in which alpha
        and beta learned and the genotype stayed the same.
    """
    assert genotype.alpha is not None and genotype.beta is not None
    numbers: dict[str, Any] = relaxed_numbers(genotype.space, genotype.alpha, genotype.beta)
    stable = 0
    if before:
        same = agreement(genotype, before)
        numbers |= same
        stable = before["stable"] + 1 if learns and set(same.values()) == {1.0} else 0
    numbers["decoded_skips"] = sum(name == SKIP for block in genotype.cell for name in block.operations)
    numbers["stable_epochs"] = stable
    collapsing = learns and is_collapsing(numbers, len(genotype.space.edges))
    return numbers, {**remembered(genotype), "stable": stable, "collapsing": collapsing}


def with_eigenvalue(eigenvalue: float, before: Mapping[str, Any], memory: dict[str, Any]) -> dict[str, float]:
    """An epoch's `eigenvalue` and, from the sixth epoch on, its `eigenvalue_growth` over five epochs.

    Args:
        eigenvalue: The dominant eigenvalue of the Hessian of the architecture's loss.
        before: The memory of the previous epoch.
        memory: The memory of this epoch, to which the last eigenvalues are added.
    """
    last = [*before.get("eigenvalues", []), eigenvalue][-EIGENVALUES_AGO - 1 :]
    memory["eigenvalues"] = last
    numbers = {"eigenvalue": eigenvalue}
    if len(last) > EIGENVALUES_AGO and last[0] > 0:
        numbers["eigenvalue_growth"] = eigenvalue / last[0]
    return numbers


def is_collapsing(numbers: Mapping[str, Any], edges: int) -> bool:
    """Whether skip is taking over: half of the edges or more prefer it, and alpha has left its initial value."""
    moved = numbers["alpha_entropy"] <= UNMOVED
    return moved and numbers.get("edges_prefer_skip", 0) >= COLLAPSED * edges


OPPOSITES = ("a larger", "a smaller"), ("more", "fewer")
"""Beginnings of remedies that contradict each other."""


def warnings_of(numbers: Mapping[str, Any], space: SearchSpace, progress: float, miou: float) -> dict[str, str]:
    """Warnings about an epoch's numbers by kind: a line each, with remedies that do not contradict an earlier one's.

    Args:
        numbers: From `examine`; with `gap`, the mIoU lost by discretisation, if it was measured.
        space: The search space.
        progress: Share done of the epochs in which alpha and beta learn, above 0 to 1.
        miou: mIoU of the supernet, 0 to 1.
    """
    edges, operations = len(space.edges), 2 * space.blocks
    moved, late = numbers["alpha_entropy"] <= UNMOVED, progress >= LATE
    collapsing = is_collapsing(numbers, edges)
    more, fewer = "more --epochs", "fewer --epochs"
    dropout, entropy = "--architecture.skip-dropout 0.3", "--architecture.entropy 1"
    decay = "a larger --architecture.weight-decay"
    found: dict[str, tuple[bool, str, tuple[str, ...]]] = {
        "collapse": (
            collapsing,
            f"{numbers.get('edges_prefer_skip')} of {edges} edges prefer skip: the search is collapsing",
            (dropout, decay, fewer, "--health.stop-on-collapse true"),
        ),
        "skip": (
            moved and not collapsing and numbers["decoded_skips"] > MANY_SKIPS * operations,
            f"{numbers['decoded_skips']} of {operations} operations of the decoded cell are skip: the search leans "
            "towards it; if that continues",
            (dropout, fewer),
        ),
        "none": (
            moved and numbers.get("edges_prefer_none", 0) > EMPTY * edges,
            f"{numbers.get('edges_prefer_none')} of {edges} edges prefer none, which is never decoded: the supernet "
            "learns to do without what will be decoded",
            ("a --space whose operations have no none",),
        ),
        "uniform": (
            late and numbers["alpha_entropy"] > UNDECIDED,
            f"alpha is nearly uniform (relative entropy {numbers['alpha_entropy']:.3f}), though the search is nearly "
            "over: operations are too close to tell apart",
            ("a larger --architecture.lr", more, entropy),
        ),
        "unsettled": (
            late and numbers.get("cell_agreement", 1.0) < UNSTABLE,
            f"only {100 * numbers.get('cell_agreement', 1.0):.0f} % of the decoded cell is as it was an epoch ago, "
            "though the search is nearly over: it has not settled",
            (more, "a smaller --architecture.lr"),
        ),
        "sharp": (
            numbers.get("eigenvalue_growth", 0.0) > SHARPENING,
            f"the dominant eigenvalue of the architecture's loss is {numbers.get('eigenvalue_growth', 0.0):.1f} times "
            f"that of {EIGENVALUES_AGO} epochs ago: the search enters a sharp minimum, which decoding leaves",
            (decay, fewer, "the genotype of an earlier epoch (genotypes.jsonl)"),
        ),
        "gap": (
            numbers.get("gap", 0.0) > LOST * miou,
            f"with the decoded architecture forced, the supernet loses {100 * numbers.get('gap', 0.0):.1f} of its "
            f"{100 * miou:.1f} % mIoU: its mIoU says little of the decoded network",
            (entropy, more),
        ),
    }
    lines, given = dict[str, str](), set[str]()
    for kind, (holds, finding, remedies) in found.items():
        if holds:
            kept = [remedy for remedy in remedies if not given & _opposites(remedy)]
            given.update(kept)
            advice = f"{', '.join(kept[:-1])} or {kept[-1]}" if len(kept) > 1 else "".join(kept)
            lines[kind] = finding + (f"; try {advice}" if advice else "")
    return lines


def _opposites(remedy: str) -> set[str]:
    """The remedies that contradict one: a larger and a smaller value of the same setting, more and fewer."""
    pairs = [pair for one, other in OPPOSITES for pair in ((one, other), (other, one))]
    return {other + remedy.removeprefix(one) for one, other in pairs if remedy.startswith(f"{one} ")}


def too_few_steps(config: SearchConfig, images: int, steps: int) -> str | None:
    """A line that says that the steps of a search are too few; None: they are not.

    Args:
        config: The settings.
        images: Training images, of both halves.
        steps: Steps of an epoch.
    """
    learned = config.epochs - (config.architecture.start_epoch if config.method == "darts" else 0)
    what = "alpha and beta" if config.method == "darts" else "the supernet"
    if steps * learned >= FEW_STEPS:
        return None
    return (
        f"{counted(images, 'training image')} give {counted(steps * learned, 'step')} of {what} in "
        f"{counted(learned, 'epoch')}: a search needs hundreds at least (the paper's has 14,860); give more --epochs, "
        "a smaller --loader.batch-size or more images"
    )


def verdict(numbers: Mapping[str, Any], miou: float) -> str:
    """What the last epoch's numbers say of the genotype, in words: decided or not, and what speaks for it.

    Args:
        numbers: The `health` of the epoch.
        miou: mIoU on the validation split, 0 to 1: of the supernet or, of sampled networks, of the best one.
    """
    if "networks" in numbers:
        lead = numbers["forced_miou"] - numbers["forced_mean"]
        spread = f"{100 * lead:.1f} points above their mean, s.d. {100 * numbers['forced_spread']:.1f}"
        return f"the best of {numbers['networks']} networks by the supernet's weights, {100 * miou:.1f} %, is {spread}"
    doubts = ["alpha is nearly uniform"] * (numbers["alpha_entropy"] > UNDECIDED)
    doubts += ["the cell still changes"] * (numbers.get("cell_agreement", 1.0) < UNSTABLE)
    doubts += ["the supernet does little with it alone"] * (numbers.get("gap", 0.0) > LOST * miou)
    known = [f"alpha has {100 * numbers['alpha_entropy']:.0f} % of the entropy of a uniform one"]
    if "cell_agreement" in numbers:
        kept = f"{100 * numbers['cell_agreement']:.0f} % of the cell and {100 * numbers['path_agreement']:.0f} % of the"
        known.append(f"{kept} path are as an epoch ago")
    if "forced_miou" in numbers:
        known.append(
            f"forced to it, the supernet has {100 * numbers['forced_miou']:.1f} of its {100 * miou:.1f} % mIoU"
        )
    return f"{'not decided: ' + ', '.join(doubts) if doubts else 'decided'}. {'; '.join(known)}"


def reason_to_stop(config: HealthConfig, memory: Mapping[str, Any]) -> str | None:
    """The reason in the settings to end a search after an epoch; None: continue.

    Args:
        config: The settings.
        memory: From `examine`; empty before the first epoch.
    """
    if config.stop_on_collapse and memory.get("collapsing"):
        return "the search is collapsing: half of the edges or more prefer skip (--health.stop-on-collapse)"
    if config.stop_when_stable is not None and memory.get("stable", 0) >= config.stop_when_stable:
        return f"the genotype has been the same for {memory['stable']} epochs (--health.stop-when-stable)"
    return None


def _pairs(block: Block) -> list[tuple[str, str]]:
    return list(zip(block.inputs, block.operations, strict=True))


@dataclass(frozen=True)
class Checkup:
    """Measures the health of a search."""

    config: SearchConfig
    supernet: Supernet
    """Restored bit for bit after each measurement."""
    architecture: Stepper
    """Stepper of alpha and beta."""
    train_set: SegmentationDataset
    split: tuple[np.ndarray, ...]
    """Indices of the images that the weights learn on, and of those that alpha and beta learn on."""
    processes: Processes

    def numbers(
        self,
        epoch: int,
        genotype: Genotype,
        miou: float,
        before: Mapping[str, Any],
        validation: Iterable[tuple[Tensor, Tensor, Tensor]],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The numbers of an epoch, listed in `docs/health.md`, and the memory for the next epoch.

        Args:
            epoch: From 0.
            genotype: Decoded after the epoch.
            miou: mIoU of the supernet on the validation split, 0 to 1.
            before: The memory of the previous epoch; empty at the first.
            validation: The validation split, as `evaluate_network` takes it.
        """
        config, learns = self.config, epoch >= self.config.architecture.start_epoch
        numbers, memory = examine(genotype, before, learns)
        if config.architecture.cost_weight > 0:
            numbers |= architecture_cost(config, self.supernet).shares(genotype)
        if config.health.eigenvalue_steps > 0 and learns:
            # The same batch after each epoch, so that eigenvalues can be compared.
            images, labels = next(iter(self.batches(1, 0, config.images_per_update, 1)))
            eigenvalue = architecture_eigenvalue(self.architecture, images, labels, config.health.eigenvalue_steps)
            numbers |= with_eigenvalue(eigenvalue, before, memory)
        if config.measures_gap(epoch):
            few = self.batches(0, epoch, config.loader.batch_size, config.health.gap_batches)
            how = len(self.train_set.classes), self.architecture.device, config.precision, self.processes
            forced = forced_matrix(self.supernet, genotype, few, validation, *how).mean_iou()
            numbers |= {"forced_miou": forced, "gap": miou - forced}
        return numbers, memory

    def batches(self, half: int, epoch: int, size: int, count: int) -> Iterable[tuple[Tensor, Tensor]]:
        return part_batches(self.config, self.train_set, self.split[half], epoch, size, count, self.processes)
