"""Decoding by perturbation (DARTS-PT): keeps the operations whose removal hurts most, not those of the largest alpha.

Source: Wang et al., "Rethinking architecture selection in differentiable NAS" (ICLR 2021): alpha tells little about the
value of an operation to the supernet, so that value is measured. The paper continues to train the supernet after each
decision, before it measures the next edge. Here nothing is trained: every edge is measured on the supernet as it was
searched, so that the order does not matter. The path is decoded from beta, as usual.

Shapes: E edges, O operations; a mask is boolean [E, O], False for a removed operation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.config import DataChanged
from nas.data.loading import evaluation_loader
from nas.evaluation.evaluate import evaluate_network
from nas.supernet.loading import load_supernet
from nas.supernet.network import FixedArchitecture
from nas.training.progress import StepProgress
from search_spaces.genotype import Block, Genotype, state_names
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace

__all__ = ["Perturbed", "decode_by_perturbation", "perturbed_cell", "validations"]

Score = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Perturbed:
    """A cell, and the losses of score that it was chosen by."""

    cell: tuple[Block, ...]
    """One entry per block."""
    operations: np.ndarray
    """[E, O]: loss of score without an operation; 0 for none, which is not tried."""
    edges: np.ndarray
    """[E]: loss of score without an edge; 0 in a block that has only two, which are both kept."""


def validations(space: SearchSpace) -> int:
    """Number of scores of a decoding: the whole, every operation, and every edge of which a block can drop one."""
    return 1 + len(space.edges) * len(set(space.operations) - {NONE}) + sum(block > 0 for _, block in space.edges)


def perturbed_cell(space: SearchSpace, alpha: np.ndarray, score: Score) -> Perturbed:
    """Keeps the operation of each edge, and the two edges into each block, without which the score loses most.

    Ties are decided by alpha, and then by position.

    Args:
        space: The search space.
        alpha: Probabilities [E, O].
        score: Mask -> score of the supernet with the mask on alpha; larger is better.
    """
    whole = np.ones(alpha.shape, dtype=bool)
    best = score(whole)

    def loss_without(*removed: int) -> float:
        mask = whole.copy()
        mask[removed] = False
        return best - score(mask)

    columns = [column for column, name in enumerate(space.operations) if name != NONE]
    operations, edges = np.zeros(alpha.shape), np.zeros(len(space.edges))
    for edge, (_, block) in enumerate(space.edges):
        for column in columns:
            operations[edge, column] = loss_without(edge, column)
        if block > 0:
            edges[edge] = loss_without(edge)
    states, cell = state_names(space.blocks), []
    chosen = [max(columns, key=lambda c: (operations[edge, c], alpha[edge, c], -c)) for edge in range(len(alpha))]
    for block in range(space.blocks):
        into = [edge for edge, (_, target) in enumerate(space.edges) if target == block]
        ranked = sorted(into, key=lambda edge: (-edges[edge], -alpha[edge, columns].max(), edge))
        low, high = sorted(ranked[:2])
        names = [space.operations[chosen[edge]] for edge in (low, high)]
        cell.append(Block((states[space.edges[low][0]], states[space.edges[high][0]]), (names[0], names[1])))
    return Perturbed(tuple(cell), operations, edges)


def decode_by_perturbation(
    folder: str | Path,
    images: int | None = None,
    device: str = "auto",
    data_root: str | None = None,
    quiet: bool = False,
    data_changed: DataChanged = "refuse",
) -> Genotype:
    """Decodes the last checkpoint of a search by perturbation, measuring mIoU on its validation split.

    Args:
        folder: The run folder.
        images: Validation images, evenly spread; None: as many as the run had. Each is computed `validations` times.
        device: Device to compute on.
        data_root: Folder of the data set, if it has moved.
        quiet: Show no progress.
        data_changed: Reaction if the validation split has other samples than the search had: refuse, or accept.

    Raises:
        ValueError: The run, its data or the device cannot be used; one line with the remedy.
    """
    run = load_supernet(folder, images, device, data_root, data_changed=data_changed)
    config, supernet, place, validation = run.config, run.supernet, run.device, run.validation
    if config.method == "sampled" or config.architecture.sampling != "none":
        drew, instead = f"one operation per edge (architecture.sampling {config.architecture.sampling})", "alpha"
        if config.method == "sampled":
            drew, instead = "one network per step (method sampled)", "supernet"
        raise ValueError(f"{folder} drew {drew}, so that there is none to take away: decode it by {instead}")
    with (
        StepProgress(validations(supernet.space), quiet=quiet) as progress,
        evaluation_loader(validation, 0, 2, place.type == "cuda") as whole_images,
    ):
        with torch.no_grad():
            whole = supernet.sample()

        def score(mask: np.ndarray) -> float:
            network = FixedArchitecture(supernet, whole.without(torch.from_numpy(mask).to(place)))
            matrix = evaluate_network(network, whole_images, supernet.classes, place, config.precision)
            progress.step("validations")
            return matrix.mean_iou()

        genotype = run.decoded(decoded_by="perturbation", images=len(validation))
        assert genotype.alpha is not None
        return dataclasses.replace(genotype, cell=perturbed_cell(supernet.space, genotype.alpha, score).cell)
