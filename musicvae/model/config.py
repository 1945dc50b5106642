"""What a run folder says about its model, config.json: the sizes of the model, its music, where it came from.

The checks here are those of every encoder and decoder; they take arrays of NumPy and tensors of torch alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import msgspec

from musicvae.files import replacing

FORMAT = 1
LONGEST_NAME = 100
CONFIG, WEIGHTS, PRIOR = "config.json", "model.safetensors", "prior.safetensors"
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


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run folder says about its model: enough to build it, and to know where it came from."""

    format: int = FORMAT
    name: str = ""
    representation: str = ""  # melody, drums, trio and so on; the model half only carries it
    drum_map: str = ""
    preset: str = ""
    size: str = ""
    model: ModelConfig
    spread: float = 1.0  # of the noise that its prior makes vectors of: below 1 nearer to the most usual
    rounds: int = 0  # of pseudo-Gibbs sampling after the prior, where nobody asks for another number
    training: dict[str, Any] = field(default_factory=dict)  # the settings of the training, as they were given
    trained: dict[str, Any] = field(default_factory=dict)  # how far it came: steps, seconds, figures

    @property
    def encodes(self) -> bool:
        """False for a model that was imported as a decoder without the encoder."""
        return self.trained.get("encodes") is not False


def load_config(folder: str | Path) -> RunConfig:
    """config.json of a run folder, without the weights; ValueError says what is wrong with it."""
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is no folder; a run is a folder with {CONFIG} and {WEIGHTS}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        found = ", ".join(sorted(p.name for p in Path(folder).iterdir())[:5]) or "nothing"
        raise ValueError(f"{folder} holds no {CONFIG}, so it is no run folder (found: {found})") from None
    try:
        values = msgspec.json.decode(data)
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version != FORMAT:
            raise ValueError(f"{path} has format {version}; this version reads format {FORMAT}. Update musicvae")
        config = msgspec.json.decode(data, type=RunConfig)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{path} is no valid run configuration: {error}") from None
    if not fits_in_a_file_name(config.name):
        raise ValueError(
            f"{path} gives the model the name {config.name[:LONGEST_NAME]!r}. It stands in the names of files: at most "
            f"{LONGEST_NAME} bytes, no slash or control character, and no dot at its beginning"
        )
    return config


def fits_in_a_file_name(name: str) -> bool:
    """Whether a model may have this name; the lone halves of characters that JSON allows are not printable."""
    return name.isprintable() and len(name.encode()) <= LONGEST_NAME and not set(name) & {"/", "\\"} and name[:1] != "."


def save_config(folder: str | Path, config: RunConfig) -> None:
    """Writes config.json, which is the old file or the new one at every moment."""
    with replacing(Path(folder) / CONFIG) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")


def check_tokens(config: ModelConfig, tokens: Any) -> None:
    """ValueError for tokens of another shape than (batch, T, streams), or no integers."""
    wanted = (config.steps, len(config.vocab_sizes))
    if len(tokens.shape) != 3 or tuple(tokens.shape[1:]) != wanted or "int" not in str(tokens.dtype):
        found = f"{str(tokens.dtype).removeprefix('torch.')} {tuple(tokens.shape)}"
        raise ValueError(
            f"tokens are {found}; the model needs integers (batch, {wanted[0]} steps, {wanted[1]} streams)"
        )


def check_range(config: ModelConfig, found: Sequence[tuple[int, int]]) -> None:
    """ValueError where the least or the greatest token of a stream is none of its vocabulary."""
    for i, ((low, high), size) in enumerate(zip(found, config.vocab_sizes)):
        if low < 0 or high >= size:
            raise ValueError(f"stream {i} has tokens {low} to {high}; the model has 0 to {size - 1}")


def check_decoding(config: ModelConfig, z: Any, uniforms: Any, temperature: float) -> None:
    """ValueError for vectors (B, Z) and uniform numbers (B, T, streams) that do not fit; temperature 0 needs none."""
    if len(z.shape) != 2 or z.shape[1] != config.latent_size:
        raise ValueError(f"z has shape {tuple(z.shape)}; the model needs (batch, {config.latent_size})")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; must be 0 (the most likely token) or more")
    wanted = (len(z), config.steps, len(config.vocab_sizes))
    if uniforms is None and temperature == 0:
        return
    if uniforms is None or tuple(uniforms.shape) != wanted:
        found = "missing" if uniforms is None else f"of shape {tuple(uniforms.shape)}"
        raise ValueError(f"uniforms are {found}; {len(z)} vectors need {wanted}")


def check_constraints(config: ModelConfig, count: int, given: Any, allowed: Any) -> None:
    """ValueError for given tokens or allowed ones that do not fit `count` vectors, or leave a step without a token."""
    vocab, total = config.vocab_sizes, sum(config.vocab_sizes)
    if given is not None:
        wanted = (count, config.steps, len(vocab))
        if tuple(given.shape) != wanted or "int" not in str(given.dtype):
            raise ValueError(f"given tokens are {given.dtype} {tuple(given.shape)}; needed are integers {wanted}")
        check_range(config, [(0, int(given[..., n].max())) for n in range(len(vocab)) if count])
    if allowed is not None:
        shape = tuple(allowed.shape)
        if shape not in {(count, config.steps, total), (1, config.steps, total)} or "bool" not in str(allowed.dtype):
            raise ValueError(
                f"allowed tokens are {allowed.dtype} {shape}; needed are booleans ({count}, {config.steps}, {total})"
            )
        for n, (start, end) in enumerate(pairwise(accumulate(vocab, initial=0))):
            if not bool(allowed[..., start:end].any(-1).all()):
                raise ValueError(f"a step of stream {n} may have no token at all; each needs at least one")
