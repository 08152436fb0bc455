"""Folded batch norms: equal to the network for every published one, and none folded where that would be wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrain.load import TOLERANCE, fold_batch_norms
from retrain.networks import NETWORKS, build
from retrain.networks.settings import NetworkConfig
from search_spaces.modules import BatchNorm, ConvBatchNorm

NARROW: dict[str, Any] = {
    "filter_multiplier": 2,
    "stem_channels": (4, 4, 8),
    "aspp_channels": 8,
    "decoder_channels": 8,
    "low_level_channels": 4,
}
"""Of these, each published network is given what it reads."""


def trained(network: nn.Module) -> nn.Module:
    """As after training: scales, shifts and statistics that are not those of the beginning."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.7, 1.3),
                (module.bias, -0.3, 0.3),
            ):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, high, generator=generator)
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_leaves_every_published_network_as_it_was(name: str) -> None:
    settings = {key: value for key, value in NARROW.items() if key in NETWORKS[name].settings}
    network = trained(build(name, 5, NetworkConfig(**settings)))
    folded, number = fold_batch_norms(network)
    norms = [sum(isinstance(module, BatchNorm) for module in part.modules()) for part in (network, folded)]
    assert norms[0] - norms[1] == number > 0
    x = torch.randn(2, 3, 45, 70)
    with torch.no_grad():
        before, after = network(x), folded(x)
    assert (before - after).abs().max() <= TOLERANCE * before.abs().max()


def test_a_folded_convolution_has_the_weights_worked_out_by_hand() -> None:
    network = trained(ConvBatchNorm(3, 2, 1, 1, BatchNorm))
    folded, number = fold_batch_norms(network)
    assert number == 1 and isinstance(folded, ConvBatchNorm)
    convolution, norm = network.convolution, network.batch_norm
    for channel in range(2):
        scale = norm.weight[channel] / (norm.running_var[channel] + norm.eps) ** 0.5
        torch.testing.assert_close(folded.convolution.weight[channel], scale * convolution.weight[channel])
        shift = norm.bias[channel] - scale * norm.running_mean[channel]
        torch.testing.assert_close(folded.convolution.bias[channel], shift)
    assert convolution.bias is None  # the network itself is left alone


class ReadTwice(nn.Module):
    """Something else reads the convolution's output, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), BatchNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return x + self.norm(x)


class Shared(ReadTwice):
    """Two batch norms read one convolution in turn, and two convolutions' sum is normalised."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x)) + self.norm(self.convolution(2 * x))


class Apart(ReadTwice):
    """Made side by side, but a ReLU stands between."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.convolution(x)))


@pytest.mark.parametrize("kind", [ReadTwice, Shared, Apart])
def test_what_cannot_be_folded_is_left_as_it_is(kind: type[nn.Module]) -> None:
    network = trained(kind())
    assert fold_batch_norms(network) == (network, 0)
