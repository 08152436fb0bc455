"""The FPLNet-style network that a genotype is retrained as: FPLNet's macro-structure around the searched cells.

Shapes: N images of H x W pixels; C channels; h_s x w_s pixels at stride s, each stride's size half the one before,
rounded up. Sizes are computed once from the image, and tensors are resized or cut to them: no size need be divisible by
anything.

Sources: FPLNet (Atif et al., 2023), section III, for everything around the cells; Auto-DeepLab (Liu et al., 2019),
section 3, for cells and path.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from torch import Tensor, nn

from retrain.network_config import NetworkConfig
from retrain.networks.base import FeatureInfo, SegmentationNetwork, freeze_unread
from retrain.networks.blocks import FUSIONS, FusionUnit, halve, stem_strides
from retrain.networks.cell import Cell, drop_path_keep
from retrain.networks.deeplab import DEFAULT_FILTER_MULTIPLIER
from retrain.networks.fplnet import InitialModule, SequentialDecoder, batch_norm_factory, module_factory
from retrain.networks.operation_settings import check_operation_settings
from search_spaces.genotype import Genotype
from search_spaces.modules import BatchNormFactory

__all__ = ["SearchedFPLNet", "SearchedStage"]

INITIAL_CONVOLUTIONS = 3


class SearchedStage(nn.Module):
    """Cells at one resolution, the first of which comes to it, closed by a FIR unit.

    A stage of one cell has one feature, and its unit puts only the image beside it.

    Args:
        cells: In the order of the path.
        batch_norm: Factory for the batch norm of the FIR unit.
    """

    def __init__(self, cells: Sequence[Cell], batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.fusion = FusionUnit(FUSIONS["fir" if len(cells) > 1 else "if"], cells[-1].channels, batch_norm)

    def forward(self, before: Tensor, last: Tensor, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns H^{l-2} and H^{l-1} for the cell that follows; the FIR unit's output stands for the last cell's.

        Args:
            before: H^{l-2} of the first cell, at any size.
            last: H^{l-1} of the first cell, at any size.
            image: (N, 3, h, w), at the stage's resolution.
            size: At which the first cell takes its inputs in: the stage's own, or the finer one that it comes from.
        """
        outputs = []
        for cell in self.cells:
            before, last = last, cell(before, last, size)
            outputs.append(last)
            size = (image.shape[-2], image.shape[-1])
        return before, self.fusion(outputs[0], outputs[-1], image)


class SearchedFPLNet(SegmentationNetwork):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any genotype and any H and W of at least 1.

    FPLNet's initial module at half the stride at which the path begins (its output is both inputs of the first cell);
    the cells along the path in stages, each a longest run of one resolution closed by a FIR unit; FPLNet's decoder.

    Args:
        genotype: Cell and path.
        classes: Number of classes.
        config: Widths and regularisation; None: the defaults.

    Attributes:
        feature_info: Channels and stride of each stage's output, in the order of `features`.

    Raises:
        ValueError: `classes` is below 1.
    """

    head = ("decoder",)

    def __init__(self, genotype: Genotype, classes: int, config: NetworkConfig | None = None) -> None:
        super().__init__(classes)
        config = config or NetworkConfig()
        space, layers = genotype.space, len(genotype.path)
        multiplier = config.filter_multiplier or DEFAULT_FILTER_MULTIPLIER
        batch_norm = batch_norm_factory(config)
        settings = config.operation_settings(space.settings)

        stride = max(1, genotype.path[0] // 2)
        self.initial = InitialModule(stem_strides(stride, INITIAL_CONVOLUTIONS), batch_norm)
        self.stages = nn.ModuleList()
        self.feature_info = [FeatureInfo(self.initial.channels_out, stride)]
        before = last = self.initial.channels_out
        for level, run in groupby(enumerate(genotype.levels, start=1), key=itemgetter(1)):
            cells = []
            for layer, _ in run:
                cell = Cell(
                    genotype.cell,
                    before,
                    last,
                    multiplier * 2**level,
                    stride=2 if space.strides[level] > stride else 1,
                    keep=drop_path_keep(layer, layers, config.drop_path_keep),
                    batch_norm=batch_norm,
                    settings=settings,
                )
                cells.append(cell)
                before, last, stride = last, cell.channels, space.strides[level]
            stage = SearchedStage(cells, batch_norm)
            self.stages.append(stage)
            last = stage.fusion.channels_out
            self.feature_info.append(FeatureInfo(last, stride))
        self.halvings = [info.stride.bit_length() - 1 for info in self.feature_info]
        module = module_factory(config, "fpl", space.settings)
        self.decoder = SequentialDecoder(last, stride, classes, module, batch_norm)
        check_operation_settings(config, self)
        freeze_unread(self, genotype)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the stages' outputs: "stage1", the initial module's, then those of cells."""
        return {f"stage{number}": output for number, output in enumerate(self._stages(x, self._images(x)), start=1)}

    def logits(self, x: Tensor) -> Tensor:
        images = self._images(x)
        return self.decoder(self._stages(x, images)[-1], [_size(image) for image in images[: self.halvings[-1]]])

    def _stages(self, x: Tensor, images: list[Tensor]) -> list[Tensor]:
        before = last = self.initial(x)
        outputs = [last]
        for stage, (previous, own) in zip(self.stages, pairwise(self.halvings), strict=True):
            before, last = stage(before, last, images[own], _size(images[min(previous, own)]))
            outputs.append(last)
        return outputs

    def _images(self, x: Tensor) -> list[Tensor]:
        """The image at strides 1, 2, 4 and so on, up to the coarsest of the network."""
        images = [x]
        for _ in range(max(self.halvings)):
            images.append(halve(images[-1]))
        return images


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
