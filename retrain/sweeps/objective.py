"""What a trial of a study does: a search or a training, and what its network costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from nas.config import RunConfig, SearchConfig
from nas.darts import resolve_space, search
from nas.data.splits import open_split
from nas.evaluation.cost import measure, median_seconds
from nas.runs.names import GENOTYPE
from nas.training.devices import choose_device, set_float32
from retrain.config import RetrainConfig
from retrain.networks import build
from retrain.networks.base import SegmentationNetwork
from retrain.networks.settings import NetworkConfig
from retrain.sweeps.space import Space
from retrain.sweeps.study import TrialRun
from retrain.training import train

__all__ = ["check_networks", "run_trial"]


def check_networks(space: Space) -> None:
    """Builds what the settings name, for each end of a range and each choice, before the first trial is begun.

    Raises:
        ValueError: A network or a search space cannot be built with them.
    """
    for plain in space.single_changes():
        config = space.config(plain)
        if isinstance(config, RetrainConfig):
            with torch.device("meta"):  # shapes only
                build(config.genotype, 2, config.network)
        elif isinstance(config, SearchConfig):
            resolve_space(config)


def run_trial(trial: TrialRun, objectives: Sequence[str]) -> list[float]:
    """Searches or trains in the trial's run folder; the value of each objective.

    mIoU is that after the last epoch: of the supernet in a search. Costs are those of the network, of a search's
    genotype with the default settings, for one whole validation image.
    """
    resume = trial.folder if trial.resume else None
    config = trial.config
    if isinstance(config, SearchConfig):
        miou = search(config, resume, quiet=True, each_epoch=trial.each_epoch).val_miou
    else:
        assert isinstance(config, RetrainConfig)
        miou = train(config, resume, quiet=True, each_epoch=trial.each_epoch).last_miou
    costs = _Costs(trial)
    return [miou if name == "miou" else float(getattr(costs, name)) for name in objectives]


class _Costs:
    """Costs of a trial's network, each taken when it is asked for."""

    def __init__(self, trial: TrialRun) -> None:
        self._config: RunConfig = trial.config
        self._genotype = trial.folder / GENOTYPE

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Height and width of the first validation image, as the run reads it."""
        height, width = open_split(self._config, self._config.loader.val_split).read(0)[1].shape
        return int(height), int(width)

    @cached_property
    def _network(self) -> SegmentationNetwork:
        classes = len(open_split(self._config, self._config.loader.val_split).classes)
        if isinstance(self._config, RetrainConfig):
            return build(self._config.genotype, classes, self._config.network)
        return build(self._genotype, classes, NetworkConfig(in_channels=self._config.loader.channels))

    @property
    def multiply_adds(self) -> int:
        """Of convolutions and matrix products, for one image."""
        return measure(self._network, self._size).multiply_adds

    @property
    def parameters(self) -> int:
        """Trainable ones."""
        return measure(self._network, self._size).parameters

    @property
    def latency(self) -> float:
        """Median seconds of a forward pass, one image, on the run's device, on which nothing else should run."""
        device, precision = choose_device(self._config.device), self._config.precision
        set_float32(device, precision)
        image = torch.zeros(1, self._network.channels, *self._size, device=device)
        return median_seconds(self._network.to(device), image, precision=precision)
