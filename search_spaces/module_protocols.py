"""What a module may offer to the loops that train it; a loop never asks which module it is.

`Projected`: parameters that live in a set (a lateral inhibition's intensities in [0, 1]) and are put back into it after
each step of an optimiser. `undecayed`: parameters without weight decay. `Reporting`: numbers for the log. `Stacking`:
parameters that are several others', under whose names they are saved. `settings_read`: the `OperationSettings` that it
is built with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["Projected", "Reporting", "Stacking", "project", "reported", "settings_read", "undecayed"]

REPORTED_BY_NAME = 32
"""A class with more modules than that in a network is reported by its means: a supernet has thousands."""


class Projected:
    """Base of a module with constrained parameters. (Its name alone would not do: a child may be called `project`.)"""

    def project(self) -> None:
        """Moves its own parameters (not its children's) to the nearest values that are allowed, in place."""
        raise NotImplementedError


class Reporting:
    """Base of a module with numbers that are worth a curve."""

    def report(self) -> dict[str, float]:
        """The numbers by name."""
        raise NotImplementedError

    def reports(self) -> dict[str, tuple[str, dict[str, float]]]:
        """(class, numbers) of each module that this one stands for, by its path from here: here, only itself."""
        return {"": (type(self).__name__, self.report())}


class Stacking:
    """Base of a module that holds tensors of other modules, of several as one, or under another name."""

    def stacked_tensors(self) -> Iterator[tuple[str, list[str], Any]]:
        """(name here, names elsewhere, how they are stacked) of each such tensor.

        How: an object with the `shape` of each, `separate(tensor)` and `join(tensors)`; None: it is one tensor.
        """
        raise NotImplementedError


@torch.no_grad()
def project(network: nn.Module) -> None:
    """Projects the constrained parameters of all modules of `network`."""
    for module in network.modules():
        if isinstance(module, Projected):
            module.project()


def undecayed(network: nn.Module) -> list[nn.Parameter]:
    """The parameters without weight decay: those that a module names in its attribute `undecayed`."""
    return [getattr(module, name) for module in network.modules() for name in getattr(module, "undecayed", ())]


def settings_read(network: nn.Module) -> set[str]:
    """The operation settings that act in `network`: those that a module names in its attribute `settings_read`."""
    return {name for module in network.modules() for name in getattr(module, "settings_read", ())}


def reported(network: nn.Module) -> dict[str, float]:
    """The numbers of all reporting modules, as "module/number"; of many modules of one class their mean."""
    by_class: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for name, module in network.named_modules():
        if isinstance(module, Reporting):
            for path, (kind, report) in module.reports().items():
                by_class[kind][f"{name}.{path}" if path else name] = report
    numbers: dict[str, float] = {}
    for kind, modules in by_class.items():
        if len(modules) <= REPORTED_BY_NAME:
            numbers |= {f"{name}/{key}": value for name, report in modules.items() for key, value in report.items()}
            continue
        for key in next(iter(modules.values())):
            numbers[f"{kind}/mean {key}"] = sum(report[key] for report in modules.values()) / len(modules)
    return numbers
