"""What several processes do in tests/test_processes.py:

    torchrun --standalone --nproc_per_node 2 tests/launched.py CHECK FOLDER

Each process writes what it found to FOLDER/RANK.pt; the test sets that beside what one process finds.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nas.training.session
from nas.config import ArchitectureConfig, AugmentConfig, LoaderConfig, SearchConfig, SupernetConfig
from nas.darts import make_steppers, search
from nas.diagnostics.discretization import forced_matrix
from nas.evaluation.evaluate import evaluate_network
from nas.runs.names import RunError
from nas.supernet.alpha_sampling import AlphaSampling
from nas.supernet.network import Supernet, decode_supernet
from nas.training.distributed import Processes, process_group
from retrain.config import RetrainConfig
from retrain.training import train
from search_spaces import BatchNorm
from search_spaces.space import SearchSpace
from search_spaces.synchronized import synchronize

CPU = torch.device("cpu")
OPTIONS = ArchitectureConfig(skip_dropout=0.5, entropy=2.0, sampling="gumbel")
OPERATIONS = ("none", "skip", "max_pooling_3x3", "separable_3x3", "atrous_3x3", "li_atrous_3x3")


def settings(folder: Path, epochs: int = 2, **changes: Any) -> SearchConfig:
    """A search of seconds."""
    loader = LoaderConfig(train_limit=26, val_limit=3, cache="memory", augment=AugmentConfig(crop=(17, 17)))
    return SearchConfig(
        space="autodeeplab-tiny",
        layers=2,
        levels=2,
        epochs=epochs,
        loader=loader,
        out=str(folder),
        device="cpu",
        architecture=ArchitectureConfig(start_epoch=0),
        **changes,
    )


def batch(size: int = 4) -> tuple[Tensor, Tensor]:
    """Images (size, 3, 17, 17) and labels (size, 17, 17) of 3 classes, of which the halves ignore unlike shares."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(size, 3, 17, 17, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (size, 17, 17), generator=generator)
    labels[: size // 2, :10] = 255
    return images, labels


def tiny(engine: Any, recompute: Any = "none") -> Supernet:
    """A small supernet in float64."""
    torch.manual_seed(3)
    space = SearchSpace("test", layers=2, levels=2, blocks=2, filter_multiplier=2, operations=OPERATIONS)
    return Supernet(space, 3, engine, recompute).double()


def steps(
    processes: Processes,
    engine: Any,
    norms: str,
    recompute: Any = "none",
    accumulate: int = 1,
    order: tuple[int, ...] = (0, 1, 2, 3),
    options: ArchitectureConfig | None = None,
) -> Any:
    """The state after a weight step and an architecture step on this process's part of the batch."""
    supernet = tiny(engine, recompute)
    if norms == "frozen":
        supernet.eval()
        supernet.train = lambda mode=True: supernet  # type: ignore[method-assign]
    elif processes.several:
        synchronize(supernet)
    config = SearchConfig(accumulate=accumulate, architecture=options or ArchitectureConfig())
    if options is not None:
        supernet.alpha_sampling = AlphaSampling(supernet.space, options, 0, 40)
        supernet.alpha_sampling.begin("architecture", 30, 2, 5, CPU)
    images, labels = (processes.part(part[list(order)]) for part in batch())
    losses = [
        stepper.step(images, labels, "test").item() for stepper in make_steppers(config, supernet, CPU, processes)
    ]
    processes.share_buffers(supernet)
    return {"losses": losses, "state": supernet.state_dict()}


def batch_norms(processes: Processes, kind: str) -> Any:
    """Outputs and gradients of a batch norm over this process's part of a batch."""
    torch.manual_seed(7)
    norm = BatchNorm(5, affine=kind == "affine").double()
    x = (3 + 2 * torch.randn(6, 5, 4, 3, dtype=torch.float64)).requires_grad_()
    slope = torch.randn(6, 5, 4, 3, dtype=torch.float64)
    if processes.several:
        synchronize(norm)
    if kind == "affine":
        nn.init.normal_(norm.weight)
    own, slope = (torch.stack(list(processes.part(list(t)))) for t in (x, slope))
    y = norm(own)
    (y * slope).sum().backward()
    parameters = [processes.add_up(p.grad) for p in norm.parameters() if p.grad is not None]
    gradient = processes.add_up(x.grad)  # type: ignore[arg-type]  # each has that of its part, and zeros
    return {"y": y.detach(), "x": gradient, "parameters": parameters, "buffers": list(norm.buffers())}


def gap(processes: Processes) -> float:
    """mIoU of a forced supernet, its statistics of this process's part of a batch and those of the others."""
    supernet = tiny("fast")
    if processes.several:
        synchronize(supernet)
    images, labels = batch(5)
    whole = [(images[i : i + 1], labels[i : i + 1], torch.tensor([i])) for i in processes.turns(5)]
    part = [tuple(processes.part(part) for part in batch())]
    genotype = decode_supernet(supernet, {})
    return forced_matrix(supernet, genotype, part, whole, 3, CPU, processes=processes).mean_iou()  # type: ignore[arg-type]


def exchanges(processes: Processes) -> Any:
    """What the small exchanges give."""
    found: dict[str, Any] = {
        "any": [processes.any(processes.rank == 1, False), processes.any(False)],
        "agreed": processes.agreed(lambda: f"by {processes.rank}"),
        "turns": list(processes.turns(5)),
    }

    def fail() -> None:
        raise ValueError(f"said by {processes.rank}")

    for name, call in (
        ("error", lambda: processes.agreed(fail)),
        ("differ", lambda: processes.check_same("numbers", torch.tensor([float(processes.rank)]))),
        (
            "graphs",
            lambda: make_steppers(SearchConfig(supernet=SupernetConfig(graphs=True)), tiny("fast"), CPU, processes),
        ),
    ):
        try:
            call()
        except (ValueError, RunError) as error:
            found[name] = str(error)
    processes.check_same("numbers", torch.ones(2))
    torch.manual_seed(2)
    network = nn.Conv2d(3, 4, 1)
    images, labels = batch(5)
    whole = [(images[i : i + 1].float(), labels[i : i + 1], torch.tensor([i])) for i in processes.turns(5)]
    found["counts"] = evaluate_network(network, whole, 4, CPU, processes=processes).counts.tolist()
    return found


def searches(folder: Path) -> Any:
    """alpha and beta after each epoch of a search."""
    seen: list[dict[str, Tensor]] = []
    evaluate = nas.training.session.evaluate_network

    def watched(supernet: Any, *rest: Any, **more: Any) -> Any:
        seen.append({name: p.detach().clone() for name, p in supernet.architecture.named_parameters()})
        return evaluate(supernet, *rest, **more)

    nas.training.session.evaluate_network = watched
    result = search(settings(folder / "run"), quiet=True)
    nas.training.session.evaluate_network = evaluate
    train(retraining(folder / "trained"), quiet=True)
    return {"architecture": seen, "miou": result.val_miou}


def retraining(folder: Path, batch_size: int = 2) -> RetrainConfig:
    """A retraining of seconds, with batch norms over all processes."""
    loader = dataclasses.replace(settings(folder).loader, batch_size=batch_size)
    return RetrainConfig(
        genotype="espnet", epochs=2, loader=loader, out=str(folder), device="cpu", sync_batch_norm="always"
    )


def everything(processes: Processes) -> Any:
    """All that needs no run folder, in one launch."""
    found: dict[str, Any] = {"exchanges": exchanges(processes)}
    for kind in ("affine", "plain"):
        found[f"batch norm {kind}"] = batch_norms(processes, kind)
    for engine in ("plain", "fast"):
        for norms in ("frozen", "synchronized"):
            found[f"{engine} {norms}"] = steps(processes, engine, norms)
    found["recomputed"] = steps(processes, "fast", "synchronized", recompute="node")
    found["options"] = steps(processes, "fast", "synchronized", options=OPTIONS)
    found["gap"] = gap(processes)
    found["accumulated"] = steps(processes, "fast", "frozen", accumulate=2)
    return found


def main(check: str, folder: Path) -> None:
    """Runs a check in this process."""
    if check == "searches":
        found = searches(folder)
    else:
        with process_group("cpu") as processes:
            found = everything(processes)
    torch.save(found, folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
