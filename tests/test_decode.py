"""alpha and beta to a genotype and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import decoders
import decoders.decoding
from decoders import decode, greedy_cell, redecode, viterbi
from search_spaces.genotype import Genotype, GenotypeError, state_names
from search_spaces.published import PUBLISHED_GENOTYPES, auto_deeplab
from search_spaces.space import load
from strategies import alphas, betas, spaces, transition_mask


@given(st.data())
def test_puts_cell_and_path_together(data: st.DataObject) -> None:
    space = data.draw(spaces())
    alpha, beta = data.draw(alphas(space)), data.draw(betas(space))
    genotype = decode(space, alpha, beta, {"epoch": 3})
    assert genotype.cell == greedy_cell(alpha, space.operations)
    assert genotype.levels == viterbi(beta).levels
    assert genotype.provenance == {"epoch": 3}
    assert redecode(genotype).to_json() == genotype.to_json()


def one_hot(genotype: Genotype) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are 0.9 on the genotype's choices."""
    space = genotype.space
    states = state_names(space.blocks)
    alpha = np.full((len(space.edges), len(space.operations)), 0.0)
    alpha[:, 0] = 1.0
    rows = {edge: row for row, edge in enumerate(space.edges)}
    for number, block in enumerate(genotype.cell):
        for state, operation in zip(block.inputs, block.operations, strict=True):
            row = rows[states.index(state), number]
            alpha[row] = 0.0
            alpha[row, space.operations.index(operation)] = 1.0
    mask = transition_mask(space)
    beta = np.where(mask, 1.0, 0.0)
    levels = (0, *genotype.levels)
    for layer in range(space.layers):
        beta[layer, levels[layer], levels[layer + 1] - levels[layer] + 1] = 50.0
    return alpha, np.divide(beta, beta.sum(axis=2, keepdims=True), out=np.zeros_like(beta), where=mask)


@pytest.mark.parametrize("name", PUBLISHED_GENOTYPES)
def test_published_genotypes_decode_from_their_own_choices(name: str) -> None:
    published = PUBLISHED_GENOTYPES[name]()
    decoded = decode(published.space, *one_hot(published))
    assert (decoded.cell, decoded.path) == (published.cell, published.path)


def test_auto_deeplab_is_the_official_network() -> None:
    genotype = auto_deeplab()
    assert genotype.levels == (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
    # As in the authors' network code, where 0 is H^{l-1}, 1 is H^{l-2}, 2... are the blocks.
    operations = ["a5", "s3", "s3", "a3", "s3", "s3", "s5", "s5", "s5", "a5"]
    indices = [1, 0, 1, 0, 3, 1, 4, 2, 3, 5]
    states = ("l-1", "l-2", "block1", "block2", "block3", "block4")
    names = {"a": "atrous", "s": "separable"}
    for number, block in enumerate(genotype.cell):
        ours = set(zip(block.inputs, block.operations, strict=True))
        official = {
            (states[indices[i]], f"{names[operations[i][0]]}_{operations[i][1]}x{operations[i][1]}")
            for i in (2 * number, 2 * number + 1)
        }
        assert ours == official


def test_nothing_to_decode() -> None:
    with pytest.raises(GenotypeError, match=r"no alpha and no beta.*published.*nothing to decode"):
        redecode(auto_deeplab())


def test_keeps_copies() -> None:
    space = load("autodeeplab-tiny")
    alpha, beta = one_hot(decode(space, *uniform()))
    genotype = decode(space, alpha, beta)
    text = genotype.to_json()
    alpha[:], beta[:] = 0, 0
    assert genotype.to_json() == text


def uniform() -> tuple[np.ndarray, np.ndarray]:
    space = load("autodeeplab-tiny")
    alpha = np.full((len(space.edges), len(space.operations)), 1 / len(space.operations))
    beta = transition_mask(space).astype(np.float64)
    return alpha, np.divide(beta, beta.sum(axis=2, keepdims=True), out=np.zeros_like(beta), where=beta > 0)


def test_wrong_shapes_and_sums_are_refused() -> None:
    space = load("autodeeplab-tiny")
    alpha, beta = uniform()
    with pytest.raises(GenotypeError, match=r"alpha has shape \[2, 5\]: expected \[edges, operations\] = \[5, 5\]"):
        decode(space, alpha[:2], beta)
    with pytest.raises(GenotypeError, match="beta has shape"):
        decode(space, alpha, beta[:2])
    with pytest.raises(GenotypeError, match="sums to"):
        decode(space, alpha / 2, beta)


def test_the_function_is_not_hidden_by_a_module() -> None:
    for name in decoders.__all__:
        assert callable(getattr(decoders, name))
