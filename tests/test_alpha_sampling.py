"""What a step makes of alpha: each option by hand, in both engines, exactly again after an interrupt."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import nas.darts
import nas.runs.epoch_log
from nas.config import ArchitectureConfig, SearchConfig, SupernetConfig
from nas.darts import search
from nas.runs.folder import read_metrics
from nas.supernet.alpha_sampling import AlphaSampling
from runs import check_same_run, interrupt, on_step
from search_spaces.space import SearchSpace
from test_fast_node import compare, engines
from test_search import STEPS, settings
from test_supernet import space

CPU = torch.device("cpu")
SPACE = SearchSpace("four", 2, 2, 2, 2, ("none", "skip", "separable_3x3", "atrous_3x3"))
START = {"lr": 0.02, "start_epoch": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "skip dropout": {"skip_dropout": 0.6},
    "entropy": {"entropy": 2.0},
    "gumbel": {"sampling": "gumbel"},
    "sigmoid": {"sampling": "sigmoid", "zero_one": 10.0},
    "dirichlet": {"sampling": "dirichlet"},
    "beta decay": {"beta_decay": 5.0},
    "all": {"skip_dropout": 0.6, "entropy": 2.0, "sampling": "gumbel"},
}


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_history", lambda history: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)


def sampling(epochs: int = 10, seed: int = 0, **options: Any) -> AlphaSampling:
    return AlphaSampling(SPACE, ArchitectureConfig(**{"start_epoch": 0, **options}), seed, epochs)


def logits() -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_without_options_alpha_is_its_softmax() -> None:
    made = sampling()
    made.begin("weight", 3, 1, 10, CPU)
    assert torch.equal(made(logits(), training=True), logits().softmax(-1))
    assert made.penalty(logits()) == 0


def test_dropped_skips_weigh_nothing_kept_ones_more_and_on_average_as_much() -> None:
    made, alpha, seen = sampling(skip_dropout=0.5), logits().softmax(-1), []
    for step in range(2000):
        made.begin("weight", 0, step, 10**9, CPU)
        used = made(logits(), training=True)
        assert torch.equal(used[:, [0, 2, 3]], alpha[:, [0, 2, 3]])
        seen.append(used[:, 1] / alpha[:, 1])
    values = torch.stack(seen)
    assert {round(value, 4) for value in values.flatten().tolist()} == {0.0, 2.0}
    assert values.mean(0).tolist() == pytest.approx([1] * 5, abs=0.1)
    assert torch.equal(made(logits(), training=False), alpha)  # validation has all


def test_the_rate_of_the_dropout_falls_linearly_to_nothing() -> None:
    made, rates = sampling(skip_dropout=0.8, epochs=4), []
    for epoch in (0, 1, 2, 3):
        drawn = []
        for step in range(500):
            made.begin("weight", epoch, step, 10**9, CPU)
            drawn.append(made(logits(), training=True)[:, 1] == 0)
        rates.append(torch.stack(drawn).double().mean().item())
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2], abs=0.04)


def test_gumbel_draws_one_operation_by_its_probability() -> None:
    made, counts = sampling(sampling="gumbel"), torch.zeros(5, 4)
    for step in range(4000):
        made.begin("weight", 0, step, 10**9, CPU)
        used = made(logits(), training=True)
        assert torch.equal(used.sum(1), torch.ones(5)) and set(used.flatten().tolist()) == {0.0, 1.0}
        counts += used
    np.testing.assert_allclose(counts / 4000, logits().softmax(-1), atol=0.04)
    likeliest = made(logits(), training=False)
    assert torch.equal(likeliest.argmax(1), logits().argmax(1)) and torch.equal(likeliest.sum(1), torch.ones(5))


def test_the_gradient_of_a_drawn_alpha_is_that_of_the_soft_one_at_its_temperature() -> None:
    made = sampling(sampling="gumbel", epochs=3)
    made.begin("architecture", 1, 5, 10, CPU)
    hard, soft = (logits().requires_grad_() for _ in range(2))
    slope = torch.arange(20, dtype=torch.float64).view(5, 4)
    (made(hard, training=True) * slope).sum().backward()
    noise = np.random.default_rng([0, 1, 5, 1, 4]).gumbel(size=(5, 4))
    temperature = 10 - 9.9 * (1.5 / 3)
    (((soft.log_softmax(-1) + torch.from_numpy(noise)) / temperature).softmax(-1) * slope).sum().backward()
    torch.testing.assert_close(hard.grad, soft.grad)


def test_what_is_drawn_is_a_function_of_seed_epoch_step_and_whose_it_is() -> None:
    def drawn(kind: Any = "weight", epoch: int = 1, step: int = 2, seed: int = 0) -> list[float]:
        made = sampling(sampling="gumbel", seed=seed)
        made.begin("weight", 5, 5, 10, CPU)  # what was before does not matter
        made.begin(kind, epoch, step, 10, CPU)
        return (made._noise if made._noise is not None else torch.empty(0)).flatten().tolist()

    assert drawn() == drawn()
    others = [drawn("architecture"), drawn(epoch=2), drawn(step=3), drawn(seed=1)]
    assert all(other != drawn() for other in others)


def test_the_penalty_is_the_mean_relative_entropy_and_rises_from_the_first_epoch_that_learns() -> None:
    made, uniform = sampling(entropy=3.0, start_epoch=2, epochs=6), torch.zeros(5, 4)
    decided = torch.tensor([[50.0, 0, 0, 0]] * 5)
    for epoch, step, weight in ((0, 0, 0), (2, 0, 0), (3, 0, 0.75), (5, 5, 3 * 3.5 / 4)):
        made.begin("architecture", epoch, step, 10, CPU)
        assert made.penalty(uniform).item() == pytest.approx(weight)
        assert made.penalty(decided).item() == pytest.approx(0, abs=1e-9)
    assert made.penalty(torch.cat([uniform, decided])).item() == pytest.approx(3 * 3.5 / 8)


def test_beta_decay_is_the_mean_log_sum_exp_and_rises() -> None:
    made = sampling(beta_decay=4.0, start_epoch=1, epochs=5)
    values = torch.tensor([[0.0] * 4, [np.log(5.0)] * 4])  # log 4 and log 20
    for epoch, weight in ((0, 0.0), (1, 0.0), (3, 2.0), (4, 3.0)):
        made.begin("architecture", epoch, 0, 10, CPU)
        assert made.penalty(values).item() == pytest.approx(weight * np.log(80) / 2)


def test_sigmoids_weigh_alone_and_the_zero_one_loss_rewards_distance_from_a_half() -> None:
    made, values = sampling(sampling="sigmoid", zero_one=10.0), torch.tensor([[0.0, 0, np.log(3), -np.log(3)]] * 5)
    assert made(values, training=True)[0].tolist() == pytest.approx([0.5, 0.5, 0.75, 0.25])
    assert made.penalty(values).item() == pytest.approx(-10 * 0.0625 / 2)
    with pytest.raises(ValueError, match=r"zero_one is 1\.0, but is for architecture\.sampling sigmoid"):
        ArchitectureConfig(zero_one=1.0)


def test_dirichlet_draws_have_the_mean_of_the_distribution_and_a_gradient_and_leave_the_generator_alone() -> None:
    made, values = sampling(sampling="dirichlet"), torch.tensor([[1.0, 0, 0, np.log(0.5)]] * 5, requires_grad=True)
    mean = [2 / 4.5, 1 / 4.5, 1 / 4.5, 0.5 / 4.5]  # elu(-log 2) + 1 = 1/2
    assert made(values, training=False)[0].tolist() == pytest.approx(mean)
    state, drawn = torch.get_rng_state(), []
    for step in range(1000):
        made.begin("weight", 0, step, 10**9, CPU)
        drawn.append(made(values, training=True))
        assert step > 3 or torch.equal(drawn[-1], made(values, training=True))
    assert torch.equal(state, torch.get_rng_state())
    found = torch.stack(drawn)
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
    np.testing.assert_allclose(found.detach().mean((0, 1)), mean, atol=0.02)
    found[:, :, 0].mean().backward()
    assert values.grad is not None and (values.grad[:, 0] > 0).all() and (values.grad[:, 1:] < 0).all()


@pytest.mark.parametrize("partial_channels", [1, 2])
@pytest.mark.parametrize("name", ["skip dropout", "gumbel", "sigmoid", "dirichlet", "all"])
@pytest.mark.parametrize("recompute", ["none", "node"])
def test_both_engines_compute_the_same_with_all_gradients(name: str, partial_channels: int, recompute: Any) -> None:
    searched = space()
    plain, fast = engines(searched, partial_channels=partial_channels, recompute=recompute)
    made = AlphaSampling(searched, ArchitectureConfig(**OPTIONS[name]), 0, 40)
    made.begin("architecture", 1, 2, 3, CPU)
    plain.alpha_sampling = fast.alpha_sampling = made
    compare(plain, fast, (33, 47), training=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_acts_and_goes_on_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path, architecture=ArchitectureConfig(**START, **OPTIONS[name]))
    whole = search(config, quiet=True).folder
    bare = dataclasses.replace(config, architecture=ArchitectureConfig(**START), out=str(tmp_path / "bare"), epochs=2)
    losses = [line["loss"] for line in read_metrics(search(bare, quiet=True).folder)]
    assert losses[1] != read_metrics(whole)[1]["loss"]
    again = dataclasses.replace(config, out=str(tmp_path / "again"))
    with monkeypatch.context() as patch:
        on_step(patch, STEPS + 3, interrupt)  # in the second epoch
        with pytest.raises(KeyboardInterrupt):
            search(again, quiet=True)
    search(again, resume=tmp_path / "again", quiet=True)
    check_same_run(whole, tmp_path / "again", "search")


def test_a_weight_on_the_entropy_lowers_it(tmp_path: Path) -> None:
    entropies = []
    for weight in (0.0, 20.0):
        options = ArchitectureConfig(lr=0.1, start_epoch=0, entropy=weight)
        config = settings(tmp_path, architecture=options, out=str(tmp_path / str(weight)))
        entropies.append(read_metrics(search(config, quiet=True).folder)[-1]["health"]["alpha_entropy"])
    assert entropies[1] < entropies[0]


def test_options_that_cannot_act_are_refused() -> None:
    for options in OPTIONS.values():
        with pytest.raises(ValueError, match=r"supernet\.graphs repeats a recorded one: leave one of them out"):
            SearchConfig(architecture=ArchitectureConfig(**options), supernet=SupernetConfig(graphs=True))
    bare = SearchSpace("bare", 2, 1, 1, 2, ("separable_3x3", "atrous_3x3"))
    with pytest.raises(ValueError, match="the space bare has no operation skip: leave it out"):
        AlphaSampling(bare, ArchitectureConfig(skip_dropout=0.5), 0, 40)
