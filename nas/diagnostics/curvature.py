"""Sharpness of the minimum of alpha and beta: the dominant eigenvalue of the Hessian of their loss.

If it grows fast, the minimum is so narrow that the step to a discrete architecture leaves it, and the decoded network
is bad however low the loss was (Zela et al., "Understanding and robustifying differentiable architecture search", ICLR
2020, sections 3 and 4).

They compute the whole Hessian. Here power iteration takes each product of Hessian and vector from two first-order
gradients, which costs a few steps and works with both engines:

    H v  =  (gradient(x + e v) - gradient(x - e v)) / (2 e)  +  O(e^2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nas.diagnostics.discretization import statistics_kept
from nas.training.step import Stepper

__all__ = ["architecture_eigenvalue", "dominant_eigenvalue"]

STEP = 0.01
"""Length e of the difference: logits of an undecided alpha differ by about 0.1 to 1, and the relative rounding error of
a float32 gradient, 1e-7, is divided by e."""


def dominant_eigenvalue(gradient: Callable[[Tensor], Tensor], at: Tensor, steps: int, length: float = STEP) -> float:
    """The eigenvalue of largest magnitude of a Hessian, with its sign, by power iteration.

    It starts from the direction of the gradient, so that nothing is random; an eigenvector orthogonal to that is not
    found.

    Args:
        gradient: x [n] -> gradient [n] of a function at x.
        at: The point of the Hessian, [n].
        steps: Steps of the iteration, at least 1; each takes two gradients, and the start one.
        length: Length of the differences.

    Returns:
        The Rayleigh quotient of the last step; 0 where the gradient is 0, or the Hessian along it.
    """
    direction, value = gradient(at), 0.0
    for _ in range(steps):
        norm = float(direction.norm())
        if norm == 0.0:
            return 0.0
        direction = direction / norm
        product = (gradient(at + length * direction) - gradient(at - length * direction)) / (2 * length)
        value = float(direction @ product)
        direction = product
    return value


def architecture_eigenvalue(
    stepper: Stepper, images: Tensor, labels: Tensor, steps: int, length: float = STEP
) -> float:
    """The dominant eigenvalue of the Hessian of the architecture's loss on a batch, in alpha and beta together.

    Everything is restored afterwards, bit for bit. With Gumbel sampling or skip dropout, the draws are those of the
    last step; with several processes, each passes its own part of the batch.

    Args:
        stepper: The stepper of the architecture.
        images: (N, 3, H, W).
        labels: (N, H, W), class ids.
        steps: Steps of the power iteration.
        length: Length of the differences. Of ReLU and max pooling, whose Hessian is 0 nearly everywhere, they see the
            changes of slope within this length.
    """
    images, labels = images.to(stepper.device), labels.to(stepper.device)
    parameters = stepper.parameters
    sizes = [parameter.numel() for parameter in parameters]
    start = torch.cat([parameter.detach().flatten() for parameter in parameters])

    def put(point: Tensor) -> None:
        with torch.no_grad():
            for parameter, values in zip(parameters, point.split(sizes), strict=True):
                parameter.copy_(values.view_as(parameter))

    def gradient(point: Tensor) -> Tensor:
        put(point)
        stepper.gradients(images, labels)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return torch.cat([each.flatten() for each in gradients]) / stepper.scaler.get_scale()

    with statistics_kept(stepper.network), _gradients_kept(stepper):
        training = stepper.network.training
        stepper.network.train()
        try:
            return dominant_eigenvalue(gradient, start, steps, length)
        finally:
            put(start)
            stepper.network.train(training)


@contextmanager
def _gradients_kept(stepper: Stepper) -> Iterator[None]:
    """Restores the gradients: a CUDA graph writes to them by address."""
    before = [parameter.grad for parameter in stepper.parameters]
    try:
        yield
    finally:
        for parameter, grad in zip(stepper.parameters, before, strict=True):
            parameter.grad = grad
