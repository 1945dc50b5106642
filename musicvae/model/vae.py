"""MusicVAE: one latent vector for a whole phrase, decoded bar by bar (Roberts et al. 2018, section 3).

Shapes, used in every comment below:
    B batch   T steps a window   U bars   S steps a bar, T = U * S   V vocabulary   Z latent   C condition   H hidden
A batch of music is `tokens` (B, T, streams): one integer a step for each stream (melody, bass, drums).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

BAR_STARTS = ("silent", "previous")
LARGEST = 65_536  # of any size: more is a slip of the pen, which would take all memory
MOST_LAYERS = 64


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a model; the defaults are the paper's. Raises ValueError where they make no model."""

    vocab_sizes: tuple[int, ...]  # one a stream: (130,) melody, (512,) drums, (130, 130, 512) trio
    steps: int  # T: 32 for two bars, 256 for sixteen
    bars: int = 1  # U: 1 is the flat model, 16 the hierarchical one
    latent_size: int = 512
    encoder_units: int = 2048
    encoder_layers: int = 2
    encoder_bars: int = 1  # parts read by themselves before their summaries are read in a row; 1: the paper's encoder
    conductor_units: int = 1024
    conductor_layers: int = 2
    condition_size: int = 512  # what the conductor tells each bar, and how long the summary of a bar is
    decoder_units: int = 1024
    decoder_layers: int = 2
    bar_start: str = "silent"  # what the first step of a bar hears: nothing, or the previous bar's last token
    linear: bool = False  # a linear path from all summaries to mu, and from z to all conditions, beside the LSTMs'

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocab_sizes", tuple(self.vocab_sizes))
        if not self.vocab_sizes or not all(isinstance(v, int) and 1 < v <= LARGEST for v in self.vocab_sizes):
            raise ValueError(f"vocab_sizes is {self.vocab_sizes}; needs one integer from 2 to {LARGEST} a stream")
        for name, value in vars(self).items():
            if name in ("vocab_sizes", "bar_start", "linear"):
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; must be an integer of at least 1")
            most = MOST_LAYERS if name.endswith("_layers") else LARGEST
            if value > most:
                raise ValueError(f"{name} is {value}; must be at most {most}")
        if self.steps % self.bars:
            raise ValueError(f"{self.steps} steps cannot be cut into {self.bars} bars of one length")
        if self.steps % self.encoder_bars:
            raise ValueError(f"{self.steps} steps cannot be cut into {self.encoder_bars} encoder_bars of one length")
        if self.bar_start not in BAR_STARTS:
            raise ValueError(f"bar_start is {self.bar_start!r}; must be one of {', '.join(BAR_STARTS)}")
        if self.linear and not self.bars == self.encoder_bars > 1:
            raise ValueError(
                f"linear needs as many encoder_bars as bars, at least 2; found {self.encoder_bars} and {self.bars}"
            )


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
    def decode(self, z: Tensor, uniforms: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """z (B, Z) -> tokens (B, T, streams), one step at a time: the plain reference of the fast decoder.

        uniforms (B, T, streams) in [0, 1), from `draw_uniforms`, decide the tokens; temperature 0 (the most likely
        token, always) needs none.
        """
        uniforms = self.check_draw(z, uniforms, temperature)
        conditions, numbers = self.conduct(z), self.to_bars(uniforms)  # (B, U, C), (B*U, S, streams)
        if self.config.bar_start == "silent":
            return self.to_window(self.write_bars(conditions.flatten(0, 1), numbers, temperature))
        window = z.new_zeros(len(z), 0, len(self.config.vocab_sizes), dtype=torch.long)
        for condition, bar in zip(conditions.unbind(1), numbers.unflatten(0, (-1, self.config.bars)).unbind(1)):
            window = torch.cat([window, self.write_bars(condition, bar, temperature, last=window[:, -1:])], dim=1)
        return window

    def write_bars(
        self, conditions: Tensor, uniforms: Tensor, temperature: float, last: Tensor | None = None
    ) -> Tensor:
        """conditions (N, C), uniforms (N, S, streams) -> tokens (N, S, streams) of N bars that do not hear each other.

        last (N, 1, streams) are the tokens that the first steps hear; without it (or empty) they hear nothing.
        """
        silence = conditions.new_zeros(len(conditions), 1, sum(self.config.vocab_sizes))
        previous = silence if last is None or not last.numel() else self.one_hot(last)
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.decoders)  # nothing crosses a bar line
        written = []
        for numbers in uniforms.unbind(1):  # (N, streams)
            heads: list[Tensor] = []
            for i, (decoder, heard) in enumerate(zip(self.decoders, self.split(previous))):
                logits, states[i] = decoder(heard, conditions, states[i])
                heads += logits[:, 0].split(decoder.vocab_sizes, dim=-1)
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
        wanted = (self.config.steps, len(self.config.vocab_sizes))
        if tokens.dim() != 3 or tokens.shape[1:] != wanted or tokens.is_floating_point():
            found = f"{str(tokens.dtype).removeprefix('torch.')} {tuple(tokens.shape)}"
            raise ValueError(
                f"tokens are {found}; the model needs integers (batch, {wanted[0]} steps, {wanted[1]} streams)"
            )
        if tokens.device.type == "cpu" and tokens.numel():
            for i, (stream, size) in enumerate(zip(tokens.long().unbind(-1), self.config.vocab_sizes)):
                low, high = (int(x) for x in stream.aminmax())
                if low < 0 or high >= size:
                    raise ValueError(f"stream {i} has tokens {low} to {high}; the model has 0 to {size - 1}")
        return tokens

    def check_draw(self, z: Tensor, uniforms: Tensor | None, temperature: float) -> Tensor:
        """The uniforms on the device of z, or ValueError."""
        if z.dim() != 2 or z.shape[1] != self.config.latent_size:
            raise ValueError(f"z has shape {tuple(z.shape)}; the model needs (batch, {self.config.latent_size})")
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; must be 0 (the most likely token) or more")
        wanted = (len(z), self.config.steps, len(self.config.vocab_sizes))
        if uniforms is None and temperature == 0:
            return z.new_zeros(wanted)
        if uniforms is None or uniforms.shape != wanted:
            found = "missing" if uniforms is None else f"of shape {tuple(uniforms.shape)}"
            raise ValueError(f"uniforms are {found}; {len(z)} vectors need {wanted}")
        return uniforms.to(z.device)


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
