"""Batch norms made part of the convolutions in front of them, for inference: fewer passes over memory.

In eval mode a batch norm is y = s x + t for each channel, with s = scale / sqrt(variance + eps) and t = shift - s mean.
Behind a convolution it is the convolution with weights s W and bias s b + t.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from search_spaces.modules import BatchNorm

__all__ = ["TOLERANCE", "fold_batch_norms"]

TOLERANCE = 1e-5
"""Largest difference of the logits, relative to the largest one, at which the folded network is taken."""
SIZE = 64
"""Side of the image on which it is compared."""


class _Folded(nn.Module):
    """Stands where a batch norm was."""

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return x


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> tuple[nn.Module, int]:
    """A copy of a network without the batch norms that directly follow a convolution.

    Who follows whom is seen in a forward pass, not in the order in which modules were made. The copy is compared with
    the network on that image, and not used unless they agree: it would not, if something else than the batch norm read
    a convolution's output, too.

    Args:
        network: (1, 3, H, W) -> (1, classes, H, W), in eval mode, on the CPU in float32.

    Returns:
        The copy, in eval mode, and the number of batch norms that it lacks; the network itself and 0 where there is
        none to fold, or the two are not equal to `TOLERANCE`.
    """
    assert not network.training
    image = 2 * torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 1
    folded = copy.deepcopy(network)
    pairs, logits = _follow(folded, image)
    for convolution, (name, norm) in pairs.items():
        mean, variance = norm.running_mean, norm.running_var
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        convolution.weight, convolution.bias = weight, bias
        parent, _, child = name.rpartition(".")
        setattr(folded.get_submodule(parent), child, _Folded())
    difference = (folded(image) - logits).abs().max()
    if not pairs or not difference <= TOLERANCE * logits.abs().max():
        return network, 0
    return folded, len(pairs)


def _follow(network: nn.Module, image: Tensor) -> tuple[dict[nn.Conv2d, tuple[str, BatchNorm]], Tensor]:
    """The batch norm behind each convolution that has one, both used once in a forward pass; and the logits."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the output's identity; kept alive, so that it stays one
    uses: dict[nn.Module, int] = {}
    pairs: dict[nn.Conv2d, tuple[str, BatchNorm]] = {}
    hooks = []

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:

            def behind(module: nn.Module, _: object, output: Tensor) -> None:
                assert isinstance(module, nn.Conv2d)
                outputs[id(output)] = module, output
                uses[module] = uses.get(module, 0) + 1

            hooks.append(module.register_forward_hook(behind))
        elif isinstance(module, BatchNorm) and module.sources == 1:

            def before(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                assert isinstance(module, BatchNorm)
                uses[module] = uses.get(module, 0) + 1
                if id(inputs[0]) in outputs:
                    pairs[outputs[id(inputs[0])][0]] = name, module

            hooks.append(module.register_forward_pre_hook(before))
    logits = network(image)
    for hook in hooks:
        hook.remove()
    return {c: (name, norm) for c, (name, norm) in pairs.items() if uses[c] == uses[norm] == 1}, logits
