"""Each part of the hybrid against its formula, written out, or against PyTorch's own layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories.hybrid import IMAGE, TEXT, ids, pixels
from factories.weights import randomise
from torch import Tensor, nn

from perceiver_deploy.models.hybrid.channel_attention import ChannelAttention
from perceiver_deploy.models.hybrid.channel_linear import ChannelLinear
from perceiver_deploy.models.hybrid.cnn import ConvolutionalEncoder, tokens
from perceiver_deploy.models.hybrid.config import Cell, Combine, ImageConfig, TextConfig
from perceiver_deploy.models.hybrid.frequency_attention import FrequencyAttention
from perceiver_deploy.models.hybrid.interaction import FeatureInteraction, Features
from perceiver_deploy.models.hybrid.positions import ScaledPositions
from perceiver_deploy.models.hybrid.recurrence import CELLS, Recurrence
from perceiver_deploy.models.hybrid.recurrent_encoder import RecurrentEncoder, RecurrentLayer

TORCH_CELLS: dict[Cell, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def relative(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def load(layer: nn.RNNBase, suffix: str, recurrence: Recurrence) -> None:
    """Give a layer of PyTorch's our weights, gate by gate, by name: i, f, g, o / r, z, n."""
    names = {"lstm": "iofg", "gru": "zrn", "rnn": "h"}[next(c for c, k in CELLS.items() if k is recurrence.kind)]
    wanted = {"lstm": "ifgo", "gru": "rzn", "rnn": "h"}[next(c for c, k in CELLS.items() if k is recurrence.kind)]
    bias = recurrence.B[0].chunk(2)
    parts = {"weight_ih": recurrence.W[0], "weight_hh": recurrence.R[0], "bias_ih": bias[0], "bias_hh": bias[1]}
    for name, tensor in parts.items():
        gates = dict(zip(names, tensor.chunk(len(names)), strict=True))
        getattr(layer, f"{name}_{suffix}").data.copy_(torch.cat([gates[gate] for gate in wanted]))


@pytest.mark.parametrize("cell", TORCH_CELLS)
def test_recurrence_is_pytorchs_layer(cell: Cell) -> None:
    ours, theirs = Recurrence(cell, 5, 7), TORCH_CELLS[cell](5, 7, batch_first=True)  # type: ignore[arg-type,call-arg]
    randomise(ours)
    load(theirs, "l0", ours)
    x, state = noise(3, 9, 5), tuple(noise(3, 7, seed=i + 1) for i in range(ours.kind.states))
    start = tuple(s[None] for s in state)
    expected, final = theirs(x, start if len(start) > 1 else start[0])
    got, after = ours(x, state)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(after, tuple(f[0] for f in (final if isinstance(final, tuple) else (final,))))


@pytest.mark.parametrize("cell", TORCH_CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_recurrent_encoder_equals_packed_sequences(cell: Cell, bidirectional: bool) -> None:
    config = TextConfig(40, 24, embedding=6, hidden=7, layers=2, cell=cell, bidirectional=bidirectional)
    ours = RecurrentEncoder(config)
    randomise(ours)
    theirs = TORCH_CELLS[cell](6, 7, num_layers=2, batch_first=True, bidirectional=bidirectional)  # type: ignore[arg-type,call-arg]
    for i, layer in enumerate(ours.layers):
        assert isinstance(layer, RecurrentLayer)
        load(theirs, f"l{i}", layer.ahead)
        if layer.back is not None:
            load(theirs, f"l{i}_reverse", layer.back)
    lengths = [9, 1, 4, 6]
    padded = ids(lengths)
    packed = nn.utils.rnn.pack_padded_sequence(ours.embedding(padded), torch.tensor(lengths), True, False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    got, mask = ours(padded)
    torch.testing.assert_close(got, expected)
    assert mask.sum(dim=1).tolist() == lengths


def test_convolutional_encoder_is_its_layers_and_its_grid_is_known() -> None:
    config = ImageConfig(3, 15, 18, widths=(6, 8, 10), strides=(1, 2, 2), global_dims=(11, 5))
    encoder = ConvolutionalEncoder(config)
    randomise(encoder)
    x = pixels(2, config)
    features, overall = encoder(x)
    expected = x
    for (convolution, norm, _), stride in zip(encoder.convolutions, config.strides, strict=True):
        expected = nn.functional.conv2d(expected, convolution.weight, stride=stride, padding=1)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        expected = ((expected - norm.running_mean[:, None, None]) * scale[:, None, None]) + norm.bias[:, None, None]
        expected = expected.clamp(min=0)
    assert relative(features, expected) < 1e-6
    assert features.shape == (2, 10, *config.grid) == (2, 10, 4, 5)
    (first, _), (second, _) = encoder.connected
    pooled = expected.mean(dim=(2, 3))
    assert relative(overall, second(first(pooled).clamp(min=0)).clamp(min=0)) < 1e-6
    torch.testing.assert_close(tokens(features)[:, 7], features[:, :, 1, 2])


@pytest.mark.parametrize("combine", ["multiply", "add", "concat"])
@pytest.mark.parametrize("dim", [6, 7])
def test_positions(combine: Combine, dim: int) -> None:
    module = ScaledPositions(12, dim, combine)
    randomise(module)
    table = [[(np.sin, np.cos)[i % 2](l / 10000 ** (2 * (i // 2) / dim)) for i in range(dim)] for l in range(9)]  # noqa: E741
    scaled = module.theta * torch.tensor(table, dtype=torch.float32)
    x = noise(2, 9, dim)
    expected = {
        "multiply": lambda: x * scaled,
        "add": lambda: x + scaled,
        "concat": lambda: torch.cat([x, scaled.expand(2, 9, dim)], -1) @ module.project.weight.T + module.project.bias,
    }[combine]()
    torch.testing.assert_close(module(x), expected)


def test_channel_attention_per_sample() -> None:
    module = ChannelAttention(6)
    randomise(module)
    x, lengths = noise(3, 10, 6), [10, 4, 1]
    got = module(x, torch.arange(10) < torch.tensor(lengths)[:, None])
    for sample, out, n in zip(x, got, lengths, strict=True):
        q, k = module.query(sample[:n]).T, module.key(sample[:n]).T
        v = module.value(sample[:n].mean(dim=0))[:, None]
        expected = torch.softmax(q @ k.T / n**0.5, dim=-1) @ v + q
        torch.testing.assert_close(out[:n], expected.T)
        assert not out[n:].any()
    torch.testing.assert_close(module(x)[0], got[0])


@pytest.mark.parametrize("length", [1, 2, 7, 16, 65])
def test_frequency_attention_equals_torch_fft(length: int) -> None:
    module = FrequencyAttention(length, 6)
    randomise(module)
    x = noise(3, length, 6)
    s = torch.fft.rfft(x.double(), dim=1, norm="ortho")
    spectrum = torch.cat([s.real, s.imag], dim=-1).float()
    query, key = module.query(spectrum), module.key(spectrum)
    value = module.value(torch.stack([s.real.mean(-1), s.imag.mean(-1)], dim=-1).float())
    mixed = (torch.softmax(query @ key.mT / 12**0.5, dim=-1) @ value + query).double()
    expected = torch.fft.irfft(torch.complex(mixed[..., :6], mixed[..., 6:]), n=length, dim=1, norm="ortho")
    assert relative(module(x).double(), expected) < 1e-5
    assert relative(module.inverse(module.spectrum(x)), x) < 1e-5


def test_channel_linear_groups_do_not_mix() -> None:
    module = ChannelLinear(6, 9, groups=3)
    randomise(module)
    x = noise(2, 5, 6)
    blocks = torch.block_diag(*module.convolution.weight[:, :, 0].chunk(3))
    torch.testing.assert_close(module(x), x @ blocks.T + module.convolution.bias)
    with pytest.raises(ValueError, match="multiples of 4 groups"):
        ChannelLinear(6, 9, groups=4)


def test_interaction_weights_any_number_of_modalities() -> None:
    module = FeatureInteraction([3, 4, 5], 8)
    randomise(module)
    xs = [noise(2, length, dim, seed=dim) for length, dim in ((2, 3), (6, 4), (3, 5))]
    fused, mask = module([Features(x) for x in xs])
    assert mask is None
    projected = [p(x) for p, x in zip(module.projections, xs, strict=True)]
    scores = torch.cat([s(x.mean(dim=1)) for s, x in zip(module.scores, projected, strict=True)], dim=1)
    weights = torch.softmax(scores, dim=1)
    expected = torch.cat([x * weights[:, i, None, None] for i, x in enumerate(projected)], dim=1)
    torch.testing.assert_close(fused, module.mix(expected))
    assert (weights[0] - weights[1]).abs().max() > 1e-3  # the weights depend on the input


def test_interaction_weighs_modalities_alike_where_all_are_missing() -> None:
    interaction = FeatureInteraction([4, 6], 8)
    randomise(interaction)
    projected = [noise(2, length, 8, seed=length) for length in (5, 3)]
    none = [torch.zeros(2, length, dtype=torch.bool) for length in (5, 3)]
    assert torch.equal(interaction.weights(projected, none), torch.full((2, 2), 0.5))


def test_interaction_gives_a_missing_modality_no_weight() -> None:
    module = FeatureInteraction([3, 4], 8)
    randomise(module)
    here, gone = Features(noise(2, 2, 3)), torch.zeros(2, 6, dtype=torch.bool)
    fused, mask = module([here, Features(noise(2, 6, 4), gone)])
    other, _ = module([here, Features(noise(2, 6, 4, seed=9), gone)])
    torch.testing.assert_close(fused, other, rtol=0, atol=0)
    torch.testing.assert_close(fused[:, :2], module.mix(module.projections[0](here.tokens)))
    assert mask is not None
    assert mask.tolist() == [[True] * 2 + [False] * 6] * 2


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one stride per width"):
        ConvolutionalEncoder(ImageConfig(3, 8, 8, (4, 8), (1,), (4,)))
    assert IMAGE.tokens == 4 * 4 + 1
    assert TEXT.dim == 14
