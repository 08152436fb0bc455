"""The training step of one optimiser: forward, loss, backward, check, update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.config import Precision
from nas.training.cuda_graphs import Graphed, Pool
from nas.training.devices import autocast, grad_scaler
from nas.training.distributed import ALONE, Processes
from nas.training.losses import Loss, LossWatch, check_finite, cross_entropy
from nas.training.optimizers import load_optimizer_state, multiplier, optimizer_state

__all__ = ["Execution", "Stepper"]


@dataclass(frozen=True)
class Execution:
    """Device, precision and parallelism of steps, whose results agree to rounding."""

    device: torch.device
    """Device of the network."""
    precision: Precision = "float32"
    """Precision of the forward pass."""
    accumulate: int = 1
    """Parts in which the images of a step go through the network, one after the other."""
    processes: Processes = ALONE
    """The processes that take each step together, on their own images; the gradient is that of the loss on all."""
    graph_pool: Pool | None = None
    """Replay a CUDA graph with memory of this pool; None: launch operation by operation."""


class Stepper:
    """Takes steps with one optimiser; only the optimiser's own parameters get gradients.

    On a GPU the host never waits within a step: if the loss is not finite, the optimiser skips the step on the GPU, and
    the loss is reported one step later (see `nas.training.losses.LossWatch`). This needs a fused optimiser, as those of
    `nas.training.optimizers` are; with others, and on a CPU, the loss is read in its own step.

    Args:
        name: Kind of step, for messages.
        network: (N, 3, H, W) -> logits (N, classes, H, W).
        optimizer: Optimiser of parameters of the network.
        execution: Device, precision, processes.
        loss: The loss, as from `nas.training.losses.make_loss`.
        clip: Largest norm of the gradient, or None.
        forward: (N, 3, H, W) -> logits (N, classes, h, w) at the size at which the loss is taken; None: the network.
        penalty: Logits -> a scalar that is added to the loss of a step; None: nothing.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        execution: Execution,
        loss: Loss = cross_entropy,
        clip: float | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
        penalty: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name, self.network, self.optimizer, self.execution = name, network, optimizer, execution
        self.loss, self.clip, self.penalty = loss, clip, penalty
        self.device, self.processes = execution.device, execution.processes
        self.parameters: list[nn.Parameter] = [
            p for group in optimizer.param_groups for p in group["params"] if p.requires_grad
        ]
        own = set(self.parameters)
        self._others = [p for p in network.parameters() if p.requires_grad and p not in own]
        with _without_gradients(self._others):
            self.forward = self.processes.parallel(network, network if forward is None else forward, self.device)
        self.scaler = grad_scaler(self.device, execution.precision)
        self._term = f"loss of the {name} step"
        self._watch = LossWatch(self._term)
        self.checks_late = self.device.type == "cuda" and all(group.get("fused") for group in optimizer.param_groups)
        self._graphed = None
        if execution.graph_pool is not None:
            self._graphed = Graphed(self.gradients, list(network.buffers()), execution.graph_pool)

    @property
    def lr(self) -> float:
        """Learning rate of the next step, before the groups' multipliers."""
        group = self.optimizer.param_groups[0]
        return group["lr"] / multiplier(group)

    @lr.setter
    def lr(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * multiplier(group)

    def step(self, images: Tensor, labels: Tensor, where: str) -> Tensor:
        """Takes one step on images (N, 3, H, W) and labels (N, H, W).

        With `accumulate`, the gradient is the mean over as many parts of the images, each with its own loss (a mean
        over its labelled pixels) and batch-norm statistics.

        Returns:
            The loss before the step, a float64 scalar on the device.

        Raises:
            NonFiniteLossError: The loss of this step, or on a GPU of the step before, is not finite; nothing was
                updated. The message has `where`.
        """
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        self.network.train()
        loss = (self._graphed or self.gradients)(images, labels)
        if self.checks_late:  # a fused optimiser does nothing if this is 1; GradScaler decides by the gradients
            self.optimizer.found_inf = (~loss.isfinite()).float()  # type: ignore[attr-defined]
        else:
            check_finite(loss, self._term, where)
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self._graphed is None:  # a graph writes to the same gradients again
            self.optimizer.zero_grad()
        if self.checks_late:
            self._watch.add(loss, where)
        return loss.double()

    def settle(self) -> None:
        """Waits for the last step and checks its loss.

        Raises:
            NonFiniteLossError: It is not finite.
        """
        self._watch.settle()

    def gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Computes the gradients on images (N, 3, H, W) and labels (N, H, W) into `grad`; returns the loss."""
        for parameter in self.parameters:
            parameter.grad = None
        losses = []
        accumulate = self.execution.accumulate
        with _without_gradients(self._others):
            parts = list(zip(images.chunk(accumulate), labels.chunk(accumulate), strict=True))
            for number, part in enumerate(parts, start=1):
                with self._exchanging(number == len(parts)):
                    with autocast(self.device, self.execution.precision):
                        logits = self.forward(part[0])
                    loss = self.loss(logits, part[1])
                    if self.penalty is not None:
                        loss = loss + self.penalty(logits).to(loss.dtype)
                    if accumulate > 1:
                        loss = loss / accumulate
                    self.scaler.scale(loss).backward()
                losses.append(loss.detach())
        loss = losses[0] if accumulate == 1 else torch.stack(losses).sum()
        return self.processes.mean(loss)

    def _exchanging(self, wanted: bool) -> AbstractContextManager[Any]:
        """A context whose backward pass exchanges all gradients so far between processes, or not."""
        return nullcontext() if wanted or not self.processes.several else self.forward.no_sync()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The state of optimiser and loss scaling, for a checkpoint."""
        return {"optimizer": optimizer_state(self.optimizer, self.network), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        load_optimizer_state(self.optimizer, self.network, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


@contextmanager
def _without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within it, these parameters, which otherwise require gradients, do not."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
