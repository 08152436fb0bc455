"""Options that change alpha from step to step, against a collapse of the search; all are off by default.

Both engines use the result as their alpha. The draws are a pure function of (seed, epoch, step), the same in every
process, so that a run resumes exactly and several processes take the same steps.

- Operation-level dropout on skip (P-DARTS: Chen et al., ICCV 2019): with probability p the skip of an edge is left out
  of a step, otherwise it counts 1 / (1 - p) times. P-DARTS drops single values of its output; here the operation is
  dropped in all cells, through its weight in alpha, and so in the same way in both engines.
- One operation per edge, drawn by alpha (GDAS: Dong and Yang, CVPR 2019): hard Gumbel-softmax with the gradient of the
  soft one. All operations are computed nevertheless; those that are not drawn weigh 0.
- Sigmoid in place of softmax (Fair DARTS: Chu et al., ECCV 2020), with a zero-one loss: minus the mean of
  (sigmoid - 1/2)^2.
- Alpha drawn from a Dirichlet distribution of concentration elu(logits) + 1 in each step (DrNAS: Chen et al., ICLR
  2021). The distance to concentration 1, which regularises it there, is here the weight decay of the logits.
- Penalties whose weight rises: the entropy of alpha (Tian et al., "Discretization-aware architecture search", 2020),
  and the log-sum-exp of the logits (Beta-DARTS: Ye et al., CVPR 2022), each a mean over edges.

Decoding takes the softmax of the logits whatever the sampling: of the operations on an edge, it is in the same order.

Shapes: alpha [E, O], of E edges and O operations.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Dirichlet

from nas.config import ArchitectureConfig
from search_spaces.operations import NONE, SKIP
from search_spaces.space import SearchSpace

__all__ = ["AlphaSampling"]

LEAST = 1e-6
"""Of a concentration, which must be positive."""
TEMPERATURE, TEMPERATURE_END = 10.0, 0.1
"""Of the Gumbel-softmax at the start and at the end of a run; linear in between."""
_SAMPLING = 4  # last word of a generator's seed; `nas.data.loading` has those from 0 to 3
Kind = Literal["weight", "architecture"]


class AlphaSampling:
    """Alpha as a step uses it: `begin` draws for a step, a call applies the draws.

    Raises:
        ValueError: A setting is for an operation that the space does not have.
    """

    def __init__(self, space: SearchSpace, config: ArchitectureConfig, seed: int, epochs: int) -> None:
        self.config, self.seed, self.epochs = config, seed, epochs
        for setting, on, name in (
            ("skip_dropout", config.skip_dropout > 0, SKIP),
            ("none", config.none == "no_share", NONE),
        ):
            if on and name not in space.operations:
                raise ValueError(
                    f"architecture.{setting} is {getattr(config, setting)}, but the space {space.name} has no "
                    f"operation {name}: leave it out"
                )
        self._skip = np.array([name == SKIP for name in space.operations])
        self._shape = (len(space.edges), len(space.operations))
        self._risen = 0.0
        self._draw: int | None = None
        self._temperature = TEMPERATURE
        self._noise: Tensor | None = None  # [E, O]
        self._factors: Tensor | None = None  # [E, O]

    def begin(self, kind: Kind, epoch: int, step: int, steps: int, device: torch.device) -> None:
        """Draws for a step (epoch and step from 0, of `steps` in an epoch) and sets the scheduled values."""
        config = self.config
        if not config.varies:
            return
        done = epoch + step / steps  # epochs
        rng = np.random.default_rng([self.seed, epoch, step, int(kind == "architecture"), _SAMPLING])
        if config.sampling == "gumbel":
            self._temperature = TEMPERATURE + done / self.epochs * (TEMPERATURE_END - TEMPERATURE)
            self._noise = torch.from_numpy(rng.gumbel(size=self._shape)).to(device)
        if config.skip_dropout > 0:
            probability = config.skip_dropout * (1 - done / self.epochs)
            kept = rng.random(self._shape[0]) >= probability  # [E]
            factors = np.where(self._skip, kept[:, None] / (1 - probability), 1.0)
            self._factors = torch.from_numpy(factors).to(device)
        if config.sampling == "dirichlet":
            self._draw = int(rng.integers(2**63))
        start = config.start_epoch
        self._risen = max(0.0, (done - start) / (self.epochs - start))

    def __call__(self, logits: Tensor, training: bool) -> Tensor:
        """Logits [E, O] -> weights of the operations [E, O]; in validation nothing is random."""
        alpha = logits.sigmoid() if self.config.sampling == "sigmoid" else logits.softmax(-1)
        if self.config.sampling == "dirichlet":
            concentration = (F.elu(logits) + 1).clamp(min=LEAST)
            alpha = concentration / concentration.sum(-1, keepdim=True)  # the mean
            if training and self._draw is not None:
                with torch.random.fork_rng(devices=[]):  # restores the generator of the CPU, on which it is drawn
                    torch.default_generator.manual_seed(self._draw)
                    alpha = Dirichlet(concentration.cpu().double()).rsample().to(logits)
        if self.config.sampling == "gumbel":
            if training and self._noise is not None:
                scores = (logits.log_softmax(-1) + self._noise.to(logits)) / self._temperature
                alpha = scores.softmax(-1)
            else:
                scores = logits
            drawn = F.one_hot(scores.argmax(-1), scores.shape[-1]).to(alpha)
            alpha = drawn + (alpha - alpha.detach())  # exactly `drawn`, with the gradient of the soft one
        if training and self._factors is not None:
            alpha = alpha * self._factors.to(alpha)
        return alpha

    def penalty(self, logits: Tensor) -> Tensor:
        """The penalties in the architecture's loss, a scalar."""
        config = self.config
        entropies = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)  # [E]
        rising = config.entropy * entropies.mean() / max(np.log(self._shape[1]), 1e-12)
        rising = rising + config.beta_decay * logits.logsumexp(-1).mean()
        return self._risen * rising - config.zero_one * (logits.sigmoid() - 0.5).square().mean()
