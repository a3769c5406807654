"""Recurrent decoder: one position per call, its state an input and an output, so that any runtime can loop it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.models.hybrid.config import GeneratorConfig, HybridConfig
from perceiver_deploy.models.hybrid.heads import LatentQuery
from perceiver_deploy.models.hybrid.recurrence import CELLS, Recurrence, State


class RecurrentDecoder(nn.Module):
    """Latents (B, N, D) to a sequence of ids (B, T): recurrent layers, a linear layer, softmax.

    `begin` makes the state from the latents, `step` takes it one id further. The state is a tuple of tensors
    (B, layers, hidden): h and c of an LSTM, h alone of the other cells.
    """

    def __init__(self, config: HybridConfig, head: GeneratorConfig) -> None:
        super().__init__()
        self.config = head
        self.states = CELLS[head.cell].states
        self.ask = LatentQuery(config)
        self.initial = nn.Linear(config.query_dim, self.states * head.layers * head.hidden)
        self.embedding = nn.Embedding(head.vocabulary, head.embedding)
        dims = (head.embedding, *(head.hidden for _ in range(head.layers - 1)))
        self.layers = nn.ModuleList(Recurrence(head.cell, dim, head.hidden) for dim in dims)
        self.output = nn.Linear(head.hidden, head.vocabulary)

    def begin(self, latents: Tensor) -> State:
        """State before the first id, of latents (B, N, D)."""
        flat = torch.tanh(self.initial(self.ask(latents)))
        shape = (-1, self.config.layers, self.config.hidden)
        return tuple(part.reshape(shape) for part in flat.chunk(self.states, dim=-1))

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Log-probabilities (B, vocabulary) of the id after `token` (B,), and the next state."""
        log_probs, state = self.read(token.unsqueeze(1), state)
        return log_probs[:, 0], state

    def read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Log-probabilities (B, T, vocabulary) after each of tokens (B, T): `step` T times, in one go."""
        x, final = self.embedding(tokens), []
        for i, layer in enumerate(self.layers):
            x, after = layer(x, tuple(s[:, i] for s in state))
            final.append(after)
        stacked = tuple(torch.stack(parts, dim=1) for parts in zip(*final, strict=True))
        return torch.log_softmax(self.output(x), dim=-1), stacked

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities (B, T, vocabulary) of what follows each of tokens (B, T), the first being `start`."""
        log_probs, _ = self.read(tokens, self.begin(latents))
        return log_probs


@torch.inference_mode()
def greedy(decoder: RecurrentDecoder, latents: Tensor) -> Tensor:
    """The likeliest id at each position: (B, T), T at most the configured length; after `stop`, `stop` repeats."""
    config, state = decoder.config, decoder.begin(latents)
    token = torch.full((latents.shape[0],), config.start, device=latents.device)
    ended = torch.zeros_like(token, dtype=torch.bool)
    sequence: list[Tensor] = []
    while len(sequence) < config.length and not ended.all():
        log_probs, state = decoder.step(token, state)
        token = torch.where(ended, config.stop, log_probs.argmax(dim=-1))
        ended |= token == config.stop
        sequence.append(token)
    return torch.stack(sequence, dim=1)
