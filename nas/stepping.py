"""One optimiser's step on a network: forward, loss, check, backward, update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nas.config import Precision
from nas.devices import autocast, grad_scaler
from nas.loss import check_finite, cross_entropy
from nas.optimizers import load_optimizer_state, multiplier, optimizer_state

__all__ = ["Stepper"]


class Stepper:
    """Takes steps with one optimiser; only the optimiser's own parameters get gradients.

    Args:
        name: What steps it takes, for messages.
        network: (N, 3, H, W) -> logits (N, classes, H, W).
        optimizer: Of parameters of the network.
        device: Where the network is.
        precision: Of the forward pass.
        clip: Largest norm of the gradient, or None.
        class_weights: Weight of each class in the loss, [classes]; None: all alike.
        forward: (N, 3, H, W) -> logits (N, classes, h, w) at the size at which the loss is taken; None: the network.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: Precision,
        clip: float | None = None,
        class_weights: Tensor | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name, self.network, self.optimizer = name, network, optimizer
        self.parameters: list[nn.Parameter] = [
            p for group in optimizer.param_groups for p in group["params"] if p.requires_grad
        ]
        self.device, self.precision, self.clip = device, precision, clip
        self.class_weights = None if class_weights is None else class_weights.to(device)
        self.forward = network if forward is None else forward
        self.scaler = grad_scaler(device, precision)

    @property
    def lr(self) -> float:
        """Learning rate of the next step, before the groups' multipliers."""
        group = self.optimizer.param_groups[0]
        return group["lr"] / multiplier(group)

    @lr.setter
    def lr(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * multiplier(group)

    def step(self, images: Tensor, labels: Tensor, where: str) -> float:
        """One step on images (N, 3, H, W) and labels (N, H, W); returns the loss before it.

        Raises:
            NonFiniteLossError: The loss is not a number; nothing was updated. The message has `where`.
        """
        self.network.train()
        with autocast(self.device, self.precision):
            logits = self.forward(images.to(self.device, non_blocking=True))
        loss = cross_entropy(logits, labels.to(self.device, non_blocking=True), self.class_weights)
        value = check_finite(loss, f"cross entropy of the {self.name} step", where)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward(inputs=self.parameters)
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def state_dict(self) -> dict[str, Any]:
        """State of optimiser and loss scaling, for a checkpoint."""
        return {"optimizer": optimizer_state(self.optimizer, self.network), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        load_optimizer_state(self.optimizer, self.network, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
