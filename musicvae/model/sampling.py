"""The fast decoder: the tokens of `MusicVAE.decode`, from weights laid out for one step at a time.

What the plain decoder does anew at every step is done once: the product of a one-hot token with its weights is a row
of a table, what the condition adds to the gates holds for a whole bar, and the two matrices of a layer are one. Bars
that do not hear each other are written side by side: 16 steps for 16 bars instead of 256.

Shapes beyond those of vae.py:
    N rows written side by side: all bars of all windows if bars start silent, else the same bar of each window
    R rounds one after another: 1 if bars start silent, else U; N * R = B * U
    L layers   K streams that one decoder writes: 1, or all of them if flat
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn import functional as F

from musicvae.model.vae import MusicVAE, Start, StepDecoder, draw


class FastDecoder:
    """A model's decoder prepared for speed; it follows the model's weights where they change."""

    def __init__(self, model: MusicVAE):
        self.model = model
        self._tables: list[Tables] = []
        self._weights: list[Tensor] = []
        self._state: list[tuple[int, object]] = []

    @torch.no_grad()
    def decode(self, z: Tensor, uniforms: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """z (B, Z) -> tokens (B, T, streams), as `MusicVAE.decode` does, with the same errors.

        Sums are rounded in another order, so a token may differ, and those after it, where its uniform number (or at
        temperature 0 the lead of the most likely token) is within rounding of the border between two tokens.
        """
        config, uniforms = self.model.config, self.model.check_draw(z, uniforms, temperature)
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, allow_tf32=False):  # TF32 would change tokens
            conditions = self.model.conduct(z)  # (B, U, C)
        silent = config.bar_start == "silent"
        conditions = conditions.flatten(0, 1).unsqueeze(0) if silent else conditions.transpose(0, 1)  # (R, N, C)
        rounds, rows, _ = conditions.shape
        numbers = uniforms.double().reshape(rows, rounds * config.steps // config.bars, len(config.vocab_sizes))
        tables = self.tables()
        parts = numbers.permute(1, 2, 0).split([len(table.vocab_sizes) for table in tables], dim=1)  # (steps, K, N)
        written = [write(table, conditions, part, temperature) for table, part in zip(tables, parts)]
        return torch.cat(written, dim=1).permute(2, 0, 1).reshape(uniforms.shape)

    def tables(self) -> "list[Tables]":
        """Those of the model's decoders, prepared anew if a weight has changed or moved since the last call.

        A change in place through `.data` goes unseen, here as in autograd: torch does not count it.
        """
        weights = [parameter.detach() for parameter in self.model.decoders.parameters()]
        state = [(w.data_ptr(), object() if w.is_inference() else w._version) for w in weights]
        if state != self._state:
            self._tables = [prepare(decoder) for decoder in self.model.decoders]  # type: ignore[arg-type]
            self._weights, self._state = weights, state  # held, so that no new weight can lie where an old one lay
        return self._tables


# --- one decoder -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """The weights of one decoder as a step needs them, gates in the order i, f, o, g."""

    vocab_sizes: tuple[int, ...]
    start: Start
    tokens: list[Tensor]  # (V + 1, 4H) a stream: what each token adds to the gates of layer 0, last what silence adds
    condition: Tensor  # (C, 4H)
    weights: list[Tensor]  # of each layer's state, above layer 0 with that of the layer below: (H or 2H, 4H)
    biases: list[Tensor]  # (4H)
    to_logits: Tensor  # (H, V)
    logits_bias: Tensor  # (V)


@torch.no_grad()
def prepare(decoder: StepDecoder) -> Tables:
    """The tables of a decoder, in the precision and on the device of its weights."""
    vocab, inputs = decoder.vocab_sizes, reordered(decoder.lstm.weight_ih_l0).t()  # type: ignore[arg-type]
    weights, biases = join_layers(decoder.lstm)
    return Tables(
        vocab,
        decoder.start,
        tokens=[F.pad(part, (0, 0, 0, 1)).contiguous() for part in inputs[: sum(vocab)].split(vocab)],
        condition=inputs[sum(vocab) :].contiguous(),
        weights=weights,
        biases=biases,
        to_logits=decoder.to_logits.weight.t().contiguous(),
        logits_bias=decoder.to_logits.bias,
    )


def join_layers(lstm: nn.LSTM) -> tuple[list[Tensor], list[Tensor]]:
    """The weights and biases of a stack of layers as in `Tables`: without the part for the inputs of layer 0."""

    def weight(name: str, layer: int) -> Tensor:
        return reordered(getattr(lstm, f"{name}_l{layer}"))

    layers = range(lstm.num_layers)
    state = [weight("weight_hh", layer) for layer in layers]
    joined = state[:1] + [torch.cat([weight("weight_ih", n), state[n]], dim=1) for n in layers[1:]]
    biases = [weight("bias_ih", layer) + weight("bias_hh", layer) for layer in layers]
    return [w.t().contiguous() for w in joined], biases


def reordered(weight: Tensor) -> Tensor:
    """(4H, ...) of nn.LSTM, gates i, f, g, o -> i, f, o, g: so that the three sigmoids are one call."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, f, o, g])


def write(tables: Tables, conditions: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """conditions (R, N, C), uniforms (steps, K, N) in double -> tokens (steps, K, N), steps / R of them a round."""
    rounds, rows, _ = conditions.shape
    base = torch.matmul(conditions, tables.condition) + tables.biases[0]  # (R, N, 4H): the same at every step of a bar
    h, c = (x.unflatten(1, (rounds, rows)).unbind(1) for x in tables.start(conditions.flatten(0, 1)))  # R x (L, N, H)
    tokens = torch.empty(len(uniforms) + 1, *uniforms.shape[1:], dtype=torch.long, device=conditions.device)
    tokens[0] = tokens.new_tensor(tables.vocab_sizes).unsqueeze(1)  # the first step hears silence
    work, bar = Workspace(tables, base), len(uniforms) // rounds
    with torch.inference_mode():  # a fifth faster than no_grad; the tokens were made outside and stay plain tensors
        for step in range(len(uniforms)):
            if step % bar == 0:
                work.begin(h[step // bar], c[step // bar])
            heads = work.step(base[step // bar], tokens[step])
            for head, u, token in zip(heads, uniforms[step], tokens[step + 1]):
                token.copy_(draw(head, u, temperature))
    return tokens[1:]


class Workspace:
    """The state of N rows, and the room that a step needs: it allocates nothing from one step to the next."""

    def __init__(self, tables: Tables, base: Tensor):
        layers, rows, hidden = len(tables.weights), base.shape[1], tables.to_logits.shape[0]
        self.tables = tables
        self.h = base.new_empty(rows, layers * hidden)  # the layers side by side
        self.c = base.new_empty(layers, rows, hidden)
        below = [max(layer - 1, 0) * hidden for layer in range(layers)]
        self.heard = [self.h[:, start : (n + 1) * hidden] for n, start in enumerate(below)]  # what each layer hears
        self.hidden = self.h.split(hidden, dim=1)
        self.gates, self.row = base.new_empty(rows, 4 * hidden), base.new_empty(rows, 4 * hidden)
        self.sigmoids = self.gates[:, : 3 * hidden]
        self.i, self.f, self.o, self.g = self.gates.split(hidden, dim=1)
        self.logits = base.new_empty(rows, sum(tables.vocab_sizes))
        self.heads = self.logits.split(tables.vocab_sizes, dim=1)

    def begin(self, h: Tensor, c: Tensor) -> None:
        """Takes up the initial states (L, N, H) of a bar."""
        for part, start in zip(self.hidden, h):
            part.copy_(start)
        self.c.copy_(c)

    def step(self, base: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """base (N, 4H) and the tokens heard (K, N) -> logits (N, V) of each stream, until the next step."""
        tables, gates = self.tables, self.gates
        for layer, (weight, heard, h, c) in enumerate(zip(tables.weights, self.heard, self.hidden, self.c)):
            if layer == 0:
                torch.addmm(base, heard, weight, out=gates)
                for table, stream in zip(tables.tokens, tokens):
                    gates.add_(torch.index_select(table, 0, stream, out=self.row))
            else:
                torch.addmm(tables.biases[layer], heard, weight, out=gates)
            self.sigmoids.sigmoid_()
            self.g.tanh_()
            c.mul_(self.f).addcmul_(self.i, self.g)
            torch.tanh(c, out=h).mul_(self.o)
        torch.addmm(tables.logits_bias, self.hidden[-1], tables.to_logits, out=self.logits)
        return self.heads
