"""One optimiser's step on a network: forward, loss, check, backward, update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas.config import Precision
from nas.devices import autocast, grad_scaler
from nas.loss import check_finite, cross_entropy

__all__ = ["Stepper"]


class Stepper:
    """Takes steps with one optimiser; only the optimiser's own parameters get gradients.

    Args:
        name: What steps it takes, for messages.
        network: (N, 3, H, W) -> logits (N, classes, H, W).
        optimizer: One parameter group.
        device: Where the network is.
        precision: Of the forward pass.
        clip: Largest norm of the gradient, or None.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: Precision,
        clip: float | None = None,
    ) -> None:
        self.name, self.network, self.optimizer = name, network, optimizer
        self.parameters: list[nn.Parameter] = [p for p in optimizer.param_groups[0]["params"] if p.requires_grad]
        self.device, self.precision, self.clip = device, precision, clip
        self.scaler = grad_scaler(device, precision)

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    @lr.setter
    def lr(self, rate: float) -> None:
        self.optimizer.param_groups[0]["lr"] = rate

    def step(self, images: Tensor, labels: Tensor, where: str) -> float:
        """One step on images (N, 3, H, W) and labels (N, H, W); returns the loss before it.

        Raises:
            NonFiniteLossError: The loss is not a number; nothing was updated. The message has `where`.
        """
        self.network.train()
        with autocast(self.device, self.precision):
            logits = self.network(images.to(self.device, non_blocking=True))
        loss = cross_entropy(logits, labels.to(self.device, non_blocking=True))
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
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
