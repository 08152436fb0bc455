"""What is measured of a search's health after an epoch; what the numbers mean is in `nas.health`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nas.config import SearchConfig
from nas.curvature import architecture_eigenvalue
from nas.data.base import SegmentationDataset
from nas.discretization import forced_miou, part_batches
from nas.health import examine, with_eigenvalue
from nas.penalties import architecture_cost
from nas.processes import Processes
from nas.stepping import Stepper
from nas.supernet import Supernet
from search_spaces.genotype import Genotype

__all__ = ["Checkup"]


@dataclass(frozen=True)
class Checkup:
    """Measures the health of a search.

    Args:
        config: The settings.
        supernet: The supernet; after each measurement it is as before, bit for bit.
        architecture: Takes the steps of alpha and beta.
        train_set: The training images.
        split: Indices of those that the weights learn on, and of those that alpha and beta learn on.
        processes: Those of the run.
    """

    config: SearchConfig
    supernet: Supernet
    architecture: Stepper
    train_set: SegmentationDataset
    split: tuple[np.ndarray, ...]
    processes: Processes

    def numbers(
        self,
        epoch: int,
        genotype: Genotype,
        miou: float,
        before: Mapping[str, Any],
        validation: Iterable[tuple[Tensor, Tensor, Tensor]],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The numbers of an epoch, as `docs/health.md` lists them, and what the next epoch must know.

        Args:
            epoch: From 0.
            genotype: As decoded after it.
            miou: Of the supernet on the validation split, 0 to 1.
            before: What this gave for the epoch before; empty at the first.
            validation: The validation split, as `evaluate_network` takes it.
        """
        config, device = self.config, self.architecture.device
        learns = epoch >= config.architecture.start_epoch
        numbers, memory = examine(genotype, before, learns)
        if config.architecture.cost_weight > 0:
            numbers |= architecture_cost(config, self.supernet).shares(genotype)
        if config.health.eigenvalue_steps > 0 and learns:
            # The same batch after each epoch, so that its eigenvalues can be compared.
            images, labels = next(iter(self._batches(1, 0, config.images_per_update, 1)))
            eigenvalue = architecture_eigenvalue(self.architecture, images, labels, config.health.eigenvalue_steps)
            numbers |= with_eigenvalue(eigenvalue, before, memory)
        if config.measures_gap(epoch):
            few = self._batches(0, epoch, config.loader.batch_size, config.health.gap_batches)
            classes = len(self.train_set.classes)
            forced = forced_miou(
                self.supernet, genotype, few, validation, classes, device, config.precision, self.processes
            )
            numbers |= {"forced_miou": forced, "gap": miou - forced}
        return numbers, memory

    def _batches(self, half: int, epoch: int, size: int, count: int) -> Iterable[tuple[Tensor, Tensor]]:
        return part_batches(self.config, self.train_set, self.split[half], epoch, size, count, self.processes)
