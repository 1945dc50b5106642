"""MusicVAE: one latent vector for a whole phrase, decoded bar by bar (Roberts et al. 2018, section 3).

Shapes, used in every comment below:
    B batch   T steps a window   U bars   S steps a bar, T = U * S   V vocabulary   Z latent   C condition   H hidden
A batch of music is `tokens` (B, T, streams): one integer a step for each stream (melody, bass, drums).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from musicvae.model.config import ModelConfig, check_constraints, check_decoding, check_range, check_tokens


class Output(NamedTuple):
    posterior: Normal  # q(z|x), batch shape (B, Z)
    logits: list[Tensor]  # one (B, T, V) a stream


class Start(nn.Module):
    """A vector -> the initial (h, c) of every layer of an LSTM, through one dense layer and tanh."""

    def __init__(self, size: int, lstm: nn.LSTM):
        super().__init__()
        self.layers, self.hidden = lstm.num_layers, lstm.hidden_size
        self.dense = nn.Linear(size, 2 * self.layers * self.hidden)

    def forward(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.tanh(self.dense(vector)).view(-1, self.layers, 2, self.hidden)
        c, h = states.permute(2, 1, 0, 3).contiguous()  # each (layers, B, H)
        return h, c


class StepDecoder(nn.Module):
    """Writes the steps of one bar (or of the whole window, if flat), all conditioned on one vector."""

    def __init__(self, condition_size: int, vocab_sizes: tuple[int, ...], hidden: int, layers: int):
        super().__init__()
        self.vocab_sizes = vocab_sizes
        self.lstm = nn.LSTM(sum(vocab_sizes) + condition_size, hidden, layers, batch_first=True)
        self.start = Start(condition_size, self.lstm)
        self.to_logits = nn.Linear(hidden, sum(vocab_sizes))

    def forward(
        self, previous: Tensor, condition: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """previous (B, S, V) one-hot, condition (B, C) -> logits (B, S, V) and the LSTM state after them."""
        repeated = condition.unsqueeze(1).expand(-1, previous.shape[1], -1)
        hidden, state = self.lstm(torch.cat([previous, repeated], dim=-1), state or self.start(condition))
        return self.to_logits(hidden), state


class MusicVAE(nn.Module):
    """The four networks of section 3: encoder, conductor and bar decoders; flat if the config has one bar."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, vocab = config, config.vocab_sizes
        self.encoder = nn.LSTM(
            sum(vocab), config.encoder_units, config.encoder_layers, batch_first=True, bidirectional=True
        )
        summary = 2 * config.encoder_units
        if config.encoder_bars > 1:  # the conductor's mirror image
            self.to_summary = nn.Linear(summary, config.condition_size)
            self.reader = nn.LSTM(config.condition_size, config.conductor_units, batch_first=True, bidirectional=True)
            summary = 2 * config.conductor_units
        self.to_mu = nn.Linear(summary, config.latent_size)
        self.to_sigma = nn.Linear(summary, config.latent_size)
        groups: list[tuple[int, ...]]
        if config.bars > 1:
            self.conductor = nn.LSTM(1, config.conductor_units, config.conductor_layers, batch_first=True)
            self.conductor_start = Start(config.latent_size, self.conductor)
            self.to_condition = nn.Linear(config.conductor_units, config.condition_size)
            groups, condition_size = [(v,) for v in vocab], config.condition_size  # a decoder a stream
            if config.linear:
                summaries = config.bars * config.condition_size
                self.linear_mu = nn.Linear(summaries, config.latent_size, bias=False)
                self.linear_condition = nn.Linear(config.latent_size, summaries)
        else:
            groups, condition_size = [vocab], config.latent_size  # one decoder, a softmax a stream
        self.decoders = nn.ModuleList(
            StepDecoder(condition_size, group, config.decoder_units, config.decoder_layers) for group in groups
        )

    # --- the core: the lines that a reader of the paper should recognise -----------------------------------

    def forward(
        self,
        tokens: Tensor,
        noise: Tensor | None = None,
        unheard: Tensor | None = None,
        heard: Tensor | None = None,
    ) -> Output:
        """The training pass: encode, draw z, and predict every step from the true steps before it.

        noise (B, Z) is the standard normal draw behind z; by default from torch's global generator. The decoder hears
        `heard`, of the shape of tokens and by default the same, and a zero vector at the steps that are True in unheard
        (B, T), by default none.
        """
        posterior = self.encode(tokens)
        noise = torch.randn_like(posterior.mean) if noise is None else noise
        z = posterior.mean + posterior.stddev * noise
        return Output(posterior, self.predict_steps(tokens if heard is None else heard, z, unheard))

    def encode(self, tokens: Tensor) -> Normal:
        """tokens (B, T, streams) -> q(z|x), equations 6 and 7."""
        return self.posterior(self.read(tokens))

    def read(self, tokens: Tensor) -> Tensor:
        """tokens (B, T, streams) -> what the encoder ended with after each of its bars (B * encoder_bars, 2H)."""
        steps = self.one_hot(self.check(tokens)).unflatten(1, (self.config.encoder_bars, -1)).flatten(0, 1)
        return last_states(self.encoder, steps)

    def posterior(self, summary: Tensor) -> Normal:
        """What the encoder ended with after each of its bars (B * encoder_bars, 2H) -> q(z|x)."""
        if self.config.encoder_bars > 1:
            return self.posterior_of_bars(self.to_summary(summary).unflatten(0, (-1, self.config.encoder_bars)))
        return self.normal(summary)

    def posterior_of_bars(self, summaries: Tensor) -> Normal:
        """Summaries of the bars of each window (B, encoder_bars, C) -> q(z|x)."""
        return self.normal(last_states(self.reader, summaries), summaries.flatten(1) if self.config.linear else None)

    def normal(self, summary: Tensor, summaries: Tensor | None = None) -> Normal:
        """summary of the window (B, 2H), and for a linear path those of its bars (B, U*C) -> q(z|x).

        In the precision of the weights.
        """
        dtype = self.to_mu.weight.dtype
        with torch.autocast(summary.device.type, enabled=False):  # bf16 would round mu by more than a small sigma
            mu, sigma = self.to_mu(summary.to(dtype)), F.softplus(self.to_sigma(summary.to(dtype)))
            mu = mu if summaries is None else mu + self.linear_mu(summaries.to(dtype))
            return Normal(mu, sigma, validate_args=False)

    def conduct(self, z: Tensor) -> Tensor:
        """z (B, Z) -> what each bar is told (B, U, C); the bars hear of one another only through this."""
        if self.config.bars == 1:
            return z.unsqueeze(1)  # flat: the only "bar" is told z itself
        silence = z.new_zeros(len(z), self.config.bars, 1)  # the conductor has no input but its state
        hidden, _ = self.conductor(silence, self.conductor_start(z))
        conditions = self.to_condition(hidden)
        return conditions + self.linear_condition(z).view_as(conditions) if self.config.linear else conditions

    def predict_steps(self, tokens: Tensor, z: Tensor, unheard: Tensor | None = None) -> list[Tensor]:
        """Teacher forcing: logits of each stream (B, T, V), all bars in one batch."""
        return self.predict_bars(tokens, self.conduct(z).flatten(0, 1), unheard)

    def predict_bars(self, tokens: Tensor, conditions: Tensor, unheard: Tensor | None = None) -> list[Tensor]:
        """The same from what each bar is told (B*U, C)."""
        steps = self.one_hot(self.check(tokens))  # (B, T, V)
        steps = steps if unheard is None else steps.masked_fill(unheard.unsqueeze(-1), 0)
        if self.config.bar_start == "silent":
            previous = shift(self.to_bars(steps))  # every bar starts from silence: a zero vector
        else:
            previous = self.to_bars(shift(steps))  # only the first does: (B*U, S, V)
        parts = [decoder(heard, conditions)[0] for decoder, heard in zip(self.decoders, self.split(previous))]
        logits = self.to_window(torch.cat(parts, dim=-1))  # (B, T, V)
        return list(logits.split(self.config.vocab_sizes, dim=-1))

    @torch.no_grad()
    def decode(
        self,
        z: Tensor,
        uniforms: Tensor | None = None,
        temperature: float = 1.0,
        given: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """z (B, Z) -> tokens (B, T, streams), one step at a time: the reference of every other decoder.

        uniforms (B, T, streams) in [0, 1), from `draw_uniforms`, decide the tokens; temperature 0 (the most likely
        token, always) needs none. given (B, T, streams) are tokens to be kept, -1 where the model writes; allowed
        (B or 1, T, V) are those that it may write, True or False, the streams side by side.
        """
        check_decoding(self.config, z, uniforms, temperature)
        if uniforms is None:
            uniforms = z.new_zeros(len(z), self.config.steps, len(self.config.vocab_sizes))
        choices, numbers = self.constrained(len(z), given, allowed).to(z.device), uniforms.to(z.device)
        conditions, size = self.conduct(z), self.config.steps // self.config.bars  # (B, U, C), S
        if self.config.bar_start == "silent":
            bars = self.to_bars(numbers), self.to_bars(choices)  # (B*U, S, streams), (B*U, S, V)
            return self.to_window(self.write_bars(conditions.flatten(0, 1), *bars, temperature))
        window = z.new_zeros(len(z), 0, len(self.config.vocab_sizes), dtype=torch.long)
        for condition, part, possible in zip(conditions.unbind(1), numbers.split(size, 1), choices.split(size, 1)):
            bar = self.write_bars(condition, part, possible, temperature, last=window[:, -1:])
            window = torch.cat([window, bar], dim=1)
        return window

    def write_bars(
        self, conditions: Tensor, uniforms: Tensor, choices: Tensor, temperature: float, last: Tensor | None = None
    ) -> Tensor:
        """conditions (N, C), uniforms (N, S, streams) -> tokens (N, S, streams) of N bars that do not hear each other.

        choices (N, S, V) are the tokens that may be written. last (N, 1, streams) are the tokens that the first steps
        hear; without it (or empty) they hear nothing.
        """
        silence = conditions.new_zeros(len(conditions), 1, sum(self.config.vocab_sizes))
        previous = silence if last is None or not last.numel() else self.one_hot(last)
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.decoders)  # nothing crosses a bar line
        written = []
        for numbers, possible in zip(uniforms.unbind(1), choices.unbind(1)):  # (N, streams), (N, V)
            parts: list[Tensor] = []
            for i, (decoder, heard) in enumerate(zip(self.decoders, self.split(previous))):
                logits, states[i] = decoder(heard, conditions, states[i])
                parts.append(logits[:, 0])
            heads = torch.cat(parts, dim=-1).masked_fill(~possible, -torch.inf).split(self.config.vocab_sizes, dim=-1)
            chosen = [draw(head, u, temperature) for head, u in zip(heads, numbers.unbind(-1))]
            written.append(torch.stack(chosen, dim=-1))  # (N, streams)
            previous = self.one_hot(written[-1].unsqueeze(1))
        return torch.stack(written, dim=1)

    # --- shapes and checks ---------------------------------------------------------------------------------

    def one_hot(self, tokens: Tensor) -> Tensor:
        """(B, T, streams) integers -> (B, T, V), the one-hot streams side by side."""
        hot = torch.zeros(*tokens.shape[:-1], sum(self.config.vocab_sizes), device=tokens.device)
        for part, stream in zip(hot.split(self.config.vocab_sizes, dim=-1), tokens.long().split(1, dim=-1)):
            part.scatter_(-1, stream, 1.0)
        return hot

    def split(self, steps: Tensor) -> tuple[Tensor, ...]:
        """The part of each step that each decoder hears."""
        return steps.split([sum(d.vocab_sizes) for d in self.decoders], dim=-1)  # type: ignore[arg-type, misc]

    def to_bars(self, window: Tensor) -> Tensor:
        """(B, T, ...) -> (B*U, S, ...)."""
        return window.unflatten(1, (self.config.bars, -1)).flatten(0, 1)

    def to_window(self, bars: Tensor) -> Tensor:
        """(B*U, S, ...) -> (B, T, ...)."""
        return bars.unflatten(0, (-1, self.config.bars)).flatten(1, 2)

    def check(self, tokens: Tensor) -> Tensor:
        """The tokens themselves, or ValueError; their range on the CPU only, as elsewhere that stops the queue."""
        check_tokens(self.config, tokens)
        if tokens.device.type == "cpu" and tokens.numel():
            edges = [stream.aminmax() for stream in tokens.long().unbind(-1)]
            check_range(self.config, [(int(low), int(high)) for low, high in edges])
        return tokens

    def constrained(self, count: int, given: Tensor | None, allowed: Tensor | None) -> Tensor:
        """Which tokens may be written (B, T, V), or ValueError."""
        check_constraints(self.config, count, given, allowed)
        vocab = torch.tensor(self.config.vocab_sizes)
        free = torch.ones(count, self.config.steps, int(vocab.sum()), dtype=torch.bool)
        free = free if allowed is None else allowed.expand_as(free)
        if given is None:
            return free
        kept = given.repeat_interleave(vocab.to(given.device), dim=-1) >= 0
        return torch.where(kept, self.one_hot(given.clamp(min=0)).bool(), free.to(given.device))


def last_states(lstm: nn.LSTM, inputs: Tensor) -> Tensor:
    """inputs (N, S, D) of a bidirectional LSTM -> the last states of its top layer, both ways (N, 2H)."""
    _, (h, _) = lstm(inputs)  # h (layers * 2, N, H)
    return torch.cat([h[-2], h[-1]], dim=-1)


def shift(steps: Tensor) -> Tensor:
    """(N, S, V) -> what each step hears: the step before it, and at first nothing (a zero vector)."""
    return F.pad(steps[:, :-1], (0, 0, 1, 0))


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """logits (N, V), uniforms (N) in [0, 1) -> tokens (N), by the inverse of the cumulative distribution."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.double() - logits.double().amax(dim=-1, keepdim=True)  # a tiny temperature must not overflow
    cumulative = F.softmax(logits / temperature, dim=-1).cumsum(dim=-1)
    reached = uniforms.double().unsqueeze(-1) * cumulative[:, -1:]  # rounding may leave the sum a little off 1
    return torch.searchsorted(cumulative, reached, right=True).squeeze(-1)


def draw_uniforms(n: int, steps: int, streams: int, seed: int) -> Tensor:
    """(n, T, streams) uniform numbers in [0, 1) on the CPU; example i is the same whatever n."""
    generator = torch.Generator().manual_seed(seed ^ 0x5DEECE66D)  # never the numbers that draw_prior turns into z
    return torch.stack([torch.rand(steps, streams, generator=generator) for _ in range(n)])


def draw_prior(n: int, latent_size: int, seed: int) -> Tensor:
    """z (n, Z) from the standard normal prior on the CPU; example i is the same whatever n."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(latent_size, generator=generator) for _ in range(n)])
