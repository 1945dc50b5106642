"""Small models of every kind, and what excuses a token that is not the plain decoder's: for tests of other decoders."""

from typing import Any

import torch
from torch import Tensor

from musicvae.model.config import ModelConfig
from musicvae.model.vae import MusicVAE, draw_prior, draw_uniforms

NEAR = 1e-5  # of a probability, or at temperature 0 of a logit
KINDS: dict[str, dict[str, Any]] = {
    "flat": {"vocab_sizes": (9,)},
    "flat trio": {"vocab_sizes": (9, 7, 8)},
    "hierarchical": {"vocab_sizes": (9,), "bars": 3},
    "linear": {"vocab_sizes": (9,), "bars": 3, "encoder_bars": 3, "linear": True},
    "previous": {"vocab_sizes": (9,), "bars": 3, "bar_start": "previous"},
    "duo": {"vocab_sizes": (9, 7), "bars": 3},
    "trio": {"vocab_sizes": (9, 7, 8), "bars": 3},
    "trio read by bars": {"vocab_sizes": (9, 7, 8), "bars": 3, "encoder_bars": 3},
    "trio previous": {"vocab_sizes": (9, 7, 8), "bars": 3, "bar_start": "previous"},
}
TEMPERATURES = (0.0, 0.5, 1.0)


def build(kind: str, layers: int = 2, steps: int = 12) -> MusicVAE:
    """A model whose weights are large enough that everything it hears changes what it says."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"latent_size": 6, "encoder_units": 3, "conductor_units": 10, "condition_size": 5}
    model = MusicVAE(ModelConfig(steps=steps, decoder_units=11, decoder_layers=layers, **KINDS[kind] | sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def drawn(model: MusicVAE, n: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    config = model.config
    uniforms = draw_uniforms(n, config.steps, len(config.vocab_sizes), seed)
    return draw_prior(n, config.latent_size, seed).to(model.to_mu.weight.dtype), uniforms


def near_ties(model: MusicVAE, z: Tensor, uniforms: Tensor, temperature: float, tokens: Tensor) -> Tensor:
    """Which tokens (B, T, streams) have their number near a border, by the plain model after the tokens before them.

    Fails where a token is not the plain model's own choice and no such border excuses it.
    """
    near = torch.zeros(tokens.shape, dtype=torch.bool)
    with torch.no_grad():
        logits = model.predict_steps(tokens, z)
    for i, (head, token) in enumerate(zip(logits, tokens.unbind(-1))):
        if temperature == 0:
            behind = head.max(-1).values - head.gather(-1, token.unsqueeze(-1)).squeeze(-1)
            best, second = head.topk(2).values.unbind(-1)
            near[..., i] = best - second < NEAR
            assert (behind < NEAR).all(), "not the most likely token"
            continue
        upper = torch.softmax(head.double() / temperature, -1).cumsum(-1)
        lower = torch.cat([torch.zeros_like(upper[..., :1]), upper[..., :-1]], -1)
        below, above = (edge.gather(-1, token.unsqueeze(-1)).squeeze(-1) for edge in (lower, upper))
        number = uniforms[..., i].double()
        assert ((below - NEAR <= number) & (number <= above + NEAR)).all(), "not the token of its uniform number"
        near[..., i] = (number - below < NEAR) | (above - number < NEAR)
    return near
