"""A decoded cell at one layer of the path.

Shapes: N images, C channels, H x W pixels at the finer of the cell's level and the level before; h x w at its own.
Channels: every operation works on f = F * 2**level channels; the output has B * f.

Source: the authors' network code of Auto-DeepLab (Liu et al., 2019), which differs from the search in how a resolution
is halved: the 1x1 convolutions stay fine, and the operations that read an input of the cell get stride 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrain.networks.blocks import DropPath
from search_spaces.genotype import CELL_INPUTS, Block, state_names
from search_spaces.modules import BatchNormFactory, ReluConvBatchNorm, resize
from search_spaces.operations import DEFAULTS, OPERATIONS, SKIP
from search_spaces.settings import OperationSettings

__all__ = ["Cell", "drop_path_keep"]


def drop_path_keep(layer: int, layers: int, keep: float) -> float:
    """Returns the probability of keeping a branch of the cell at `layer` = 1..L at the end of training.

    It falls linearly with the layer to `keep` in the last one (NASNet's scheduled drop path).
    """
    return 1 - layer / layers * (1 - keep)


class Cell(nn.Module):
    """The cell of a genotype: (N, C_before, ., .) and (N, C_last, ., .) -> (N, B * f, h, w).

    Args:
        blocks: The genotype's cell.
        channels_before: Channels of H^{l-2}.
        channels_last: Channels of H^{l-1}.
        channels: f.
        stride: 2 where the path goes one level coarser, 1 elsewhere.
        keep: Probability of keeping a branch at the end of training; 1 drops nothing.
        batch_norm: Factory for the batch norms.
        settings: Settings of the operations.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        channels_before: int,
        channels_last: int,
        channels: int,
        stride: int,
        keep: float,
        batch_norm: BatchNormFactory,
        settings: OperationSettings = DEFAULTS,
    ) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.channels = len(blocks) * channels
        read = {name for block in blocks for name in block.inputs}
        # An input that no block reads gets no projection: its weights would never get a gradient.
        self.project_before: nn.Module | None = None
        self.project_last: nn.Module | None = None
        if "l-2" in read:  # the authors project H^{l-2} only where its channels differ, H^{l-1} always
            needed = channels_before != channels
            self.project_before = (
                ReluConvBatchNorm(channels_before, channels, 1, 1, batch_norm) if needed else nn.Identity()
            )
        if "l-1" in read:
            self.project_last = ReluConvBatchNorm(channels_last, channels, 1, 1, batch_norm)
        self.drop_path = DropPath(keep) if keep < 1 else None
        self.operations = nn.ModuleList(
            nn.ModuleList(
                OPERATIONS[operation].build(channels, stride if source in CELL_INPUTS else 1, batch_norm, settings)
                for source, operation in zip(block.inputs, block.operations, strict=True)
            )
            for block in blocks
        )

    def forward(self, before: Tensor, last: Tensor, size: tuple[int, int]) -> Tensor:
        """Computes the cell's output.

        Args:
            before: H^{l-2}, the output of the cell two layers before, at any size.
            last: H^{l-1}, the output of the cell one layer before.
            size: (H, W) to which the inputs are resized.
        """
        # Going finer, H^{l-1} is enlarged; H^{l-2} comes to the same size from wherever it is.
        states: dict[str, Tensor] = {}
        if self.project_before is not None:
            states["l-2"] = self.project_before(resize(before, size))  # (N, f, H, W)
        if self.project_last is not None:
            states["l-1"] = self.project_last(resize(last, size))  # (N, f, H, W)
        names = state_names(len(self.blocks))[len(CELL_INPUTS) :]
        for name, block, operations in zip(names, self.blocks, self.operations, strict=True):
            branches = []
            for source, operation, module in zip(block.inputs, block.operations, operations, strict=True):  # type: ignore[call-overload]
                branch = module(states[source])  # (N, f, h, w)
                # Dropping an identity would cut the path along which features pass unchanged.
                if self.drop_path is not None and operation != SKIP:
                    branch = self.drop_path(branch)
                branches.append(branch)
            states[name] = branches[0] + branches[1]
        return torch.cat([states[name] for name in names], dim=1)  # (N, B * f, h, w)
