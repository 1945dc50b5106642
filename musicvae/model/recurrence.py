"""Training on a CPU: the output of `MusicVAE.forward` and its gradients, from a faster recurrence than nn.LSTM's.

A one-hot token is never multiplied: its product with the weights is a row of them. What a condition adds to the gates
is computed once a bar. What is left of a step is one matrix product, whose backward pass is written by hand, so that
products are large and nothing is kept that they do not need. `vae.py` is the reference; on a GPU cuDNN is faster.

Shapes beyond those of vae.py:
    N rows side by side: windows, or bars of windows   S steps one after another   G = 4H gates: i, f, o and twice g
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from musicvae.model.vae import MusicVAE, Output, StepDecoder


class Recurrent:
    """A model as one training step needs it, its products in `dtype`; sums, cells, mu and sigma stay as they are."""

    def __init__(self, model: MusicVAE, dtype: torch.dtype = torch.float32):
        self.model, self.dtype = model, dtype

    def forward(
        self, tokens: Tensor, noise: Tensor, unheard: Tensor | None = None, heard: Tensor | None = None
    ) -> Output:
        """tokens (B, T, streams), noise (B, Z) -> the output of `MusicVAE.forward`, but for rounding; same errors."""
        posterior = self.encode(tokens)
        z = posterior.mean + posterior.stddev * noise
        return Output(posterior, self.predict_steps(tokens if heard is None else heard, z, unheard))

    def encode(self, tokens: Tensor) -> Normal:
        """tokens (B, T, streams) -> q(z|x), as `MusicVAE.encode`."""
        return self.model.posterior(self.read(tokens).to(self.model.to_mu.weight.dtype))

    def read(self, tokens: Tensor) -> Tensor:
        """tokens (B, T, streams) -> (B * encoder_bars, 2H), as `MusicVAE.read`."""
        model, lstm = self.model, self.model.encoder
        parts = model.check(tokens).long().unflatten(1, (model.config.encoder_bars, -1)).flatten(0, 1)
        steps = parts.permute(2, 1, 0)  # (streams, steps of a part, B * parts)
        ways: list[Tensor] = []  # the states (T, B, H) of each direction, in its own order of time
        for layer in range(lstm.num_layers):
            both = None if layer == 0 else torch.cat([ways[0], ways[1].flip(0)], dim=-1)  # (T, B, 2H)
            ways = [self.run(lstm, layer, suffix, steps, both, model.config.vocab_sizes) for suffix in ("", "_reverse")]
        return torch.cat([way[-1] for way in ways], dim=-1)

    def run(
        self, lstm: nn.LSTM, layer: int, suffix: str, steps: Tensor, below: Tensor | None, vocab: tuple[int, ...]
    ) -> Tensor:
        """One direction of one layer of the encoder, from zeros -> its states (T, B, H)."""
        if below is None:
            heard = list(steps.flip(1) if suffix else steps)
            inputs = arranged(getattr(lstm, f"weight_ih_l0{suffix}")).t()  # (V, G)
            gates = self.gather(heard, inputs.split(vocab), bias(lstm, 0, suffix).expand(steps.shape[2], -1))
        else:
            gates = self.project(lstm, layer, below.flip(0) if suffix else below, suffix)
        start = torch.zeros(steps.shape[2], lstm.hidden_size, dtype=bias(lstm, layer, suffix).dtype)
        return self.recur(lstm, layer, gates, start, start, suffix)

    def predict_steps(self, tokens: Tensor, z: Tensor, unheard: Tensor | None = None) -> list[Tensor]:
        """Teacher forcing: logits of each stream (B, T, V), as `MusicVAE.predict_steps`."""
        return self.predict_bars(tokens, self.model.conduct(z).flatten(0, 1), unheard)

    def predict_bars(self, tokens: Tensor, conditions: Tensor, unheard: Tensor | None = None) -> list[Tensor]:
        """The same from what each bar is told (N, C), as `MusicVAE.predict_bars`."""
        model, config = self.model, self.model.config
        silence = tokens.new_tensor(config.vocab_sizes)  # the row of zeros behind those of the tokens
        steps = tokens.long() if unheard is None else torch.where(unheard.unsqueeze(-1), silence, tokens)
        bars = model.to_bars(steps)  # (N, S, streams)
        first = silence.expand(len(bars), 1, -1)
        if config.bar_start == "silent":
            previous = torch.cat([first, bars[:, :-1]], dim=1)
        else:
            previous = model.to_bars(torch.cat([silence.expand(len(tokens), 1, -1), steps[:, :-1]], dim=1))
        streams, heads = list(previous.permute(2, 1, 0)), []
        for decoder in model.decoders:
            assert isinstance(decoder, StepDecoder)
            own, streams = streams[: len(decoder.vocab_sizes)], streams[len(decoder.vocab_sizes) :]
            heads.append(self.decode(decoder, own, conditions))
        logits = model.to_window(torch.cat(heads, dim=-1).transpose(0, 1))  # (B, T, V)
        return list(logits.split(config.vocab_sizes, dim=-1))

    def decode(self, decoder: StepDecoder, heard: list[Tensor], conditions: Tensor) -> Tensor:
        """heard (S, N) a stream, conditions (N, C) -> logits (S, N, V) of the decoder's streams."""
        lstm, vocab = decoder.lstm, decoder.vocab_sizes
        h, c = decoder.start(conditions)  # each (layers, N, H)
        inputs = arranged(lstm.weight_ih_l0).t()  # type: ignore[arg-type]  # (V + C, G)
        rows, told = inputs.split([sum(vocab), conditions.shape[1]])
        tables = [F.pad(table, (0, 0, 0, 1)) for table in rows.split(vocab)]  # hearing silence adds nothing
        gates = self.gather(heard, tables, conditions @ told + bias(lstm, 0))
        states = self.recur(lstm, 0, gates, h[0], c[0])
        for layer in range(1, lstm.num_layers):
            states = self.recur(lstm, layer, self.project(lstm, layer, states), h[layer], c[layer])
        return F.linear(states, decoder.to_logits.weight.to(self.dtype), decoder.to_logits.bias.to(self.dtype))

    def gather(self, heard: list[Tensor], tables: Any, base: Tensor) -> Tensor:
        """The gates (S, N, G) of layer 0 before its state is added."""
        return TokenGates.apply(self.dtype, base, torch.stack(heard), *tables)

    def project(self, lstm: nn.LSTM, layer: int, states: Tensor, suffix: str = "") -> Tensor:
        """The same of a higher layer, from the states of the layer below: one product for all steps."""
        weight = arranged(getattr(lstm, f"weight_ih_l{layer}{suffix}")).to(self.dtype)
        return F.linear(states, weight, bias(lstm, layer, suffix).to(self.dtype))

    def recur(self, lstm: nn.LSTM, layer: int, gates: Tensor, h: Tensor, c: Tensor, suffix: str = "") -> Tensor:
        weight = arranged(getattr(lstm, f"weight_hh_l{layer}{suffix}"))
        return Recurrence.apply(gates, h.to(self.dtype), c, weight.t().to(self.dtype))


def arranged(weight: Tensor) -> Tensor:
    """(4H, ...) of nn.LSTM, gates i, f, g, o -> i, f, o, 2g: as tanh(g) is 2 sigmoid(2g) - 1, one call serves all."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, f, o, 2 * g])


def bias(lstm: nn.LSTM, layer: int, suffix: str = "") -> Tensor:
    """What both biases of a layer add to its gates (G)."""
    return arranged(getattr(lstm, f"bias_ih_l{layer}{suffix}") + getattr(lstm, f"bias_hh_l{layer}{suffix}"))


class TokenGates(torch.autograd.Function):
    """Sums of rows: base (N, G) and, for each stream, the row of its table (V, G) that a token (S, N) names."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, base: Tensor, tokens: Tensor, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.sizes = [len(table) for table in tables]
        gates = torch.empty(*tokens.shape[1:], base.shape[1], dtype=dtype)
        rows, start = [table.contiguous() for table in tables], base.contiguous()
        for step, out in enumerate(gates):
            total = start
            for table, stream in zip(rows, tokens[:, step]):
                total = total + table.index_select(0, stream)
            out.copy_(total)
        return gates

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # (S, N, G)
        (tokens,) = ctx.saved_tensors
        exact = torch.float64 if grad.dtype == torch.float64 else torch.float32
        base = torch.zeros(grad.shape[1:], dtype=exact)
        tables = [torch.zeros(size, grad.shape[2], dtype=exact) for size in ctx.sizes]
        for step, part in enumerate(grad):
            part = part.to(exact)
            base += part
            for table, stream in zip(tables, tokens[:, step]):
                table.index_add_(0, stream, part)
        return None, base, None, *tables


class Recurrence(torch.autograd.Function):
    """The steps of one LSTM layer: gates (S, N, G) before the state is added, weight (H, G) -> states (S, N, H)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> Tensor:
        steps, rows, hidden = *gates.shape[:2], h.shape[1]
        active = torch.empty_like(gates)
        states, cells = gates.new_empty(steps + 1, rows, hidden), c.new_empty(steps + 1, rows, hidden)
        states[0], cells[0] = h, c
        weight = weight.contiguous()
        work, squashed = c.new_empty(rows, 4 * hidden), torch.empty_like(c)
        i, f, o, g = work.split(hidden, dim=1)
        for step in range(steps):
            torch.addmm(gates[step], states[step], weight, out=active[step])
            active[step].copy_(work.copy_(active[step]).sigmoid_())
            cell = torch.mul(f, cells[step], out=cells[step + 1]).addcmul_(i, g, value=2).sub_(i)
            torch.mul(cell, 2, out=squashed).sigmoid_()
            states[step + 1].copy_(squashed.mul_(2).sub_(1).mul_(o))
        ctx.save_for_backward(active, states, cells, weight)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # (S, N, H)
        active, states, cells, weight = ctx.saved_tensors
        steps, rows, hidden = grad.shape
        gates, back = torch.empty_like(active), weight.t().contiguous()  # gradients before the nonlinearities
        dh, dc = cells.new_zeros(rows, hidden), cells.new_zeros(rows, hidden)
        work, rise = cells.new_empty(rows, 4 * hidden), cells.new_empty(rows, 4 * hidden)
        squashed = torch.empty_like(dc)
        i, f, o, g = work.split(hidden, dim=1)
        di, df, do, dg = rise.split(hidden, dim=1)
        for step in reversed(range(steps)):
            dh += grad[step]
            work.copy_(active[step])
            torch.mul(cells[step + 1], 2, out=squashed).sigmoid_().mul_(2).sub_(1)  # tanh of the cell
            torch.mul(dh, squashed, out=do)
            dc += dh.mul_(o).addcmul_(dh, squashed.square_(), value=-1)
            torch.mul(dc, g, out=di).mul_(2).sub_(dc)
            torch.mul(dc, cells[step], out=df)
            torch.mul(dc, i, out=dg).mul_(2)
            dc.mul_(f)
            gates[step].copy_(rise.mul_(work).addcmul_(rise, work, value=-1))
            dh.copy_(gates[step] @ back)
        dweight = states[:-1].flatten(0, 1).t() @ gates.flatten(0, 1)
        return gates, dh.to(states.dtype), dc, dweight
