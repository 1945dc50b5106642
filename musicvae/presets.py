"""The paper's models by name: what music they hold, and how they are built and trained at three sizes."""

import difflib
import re
from dataclasses import dataclass, fields, replace
from typing import Any

from musicvae.model.config import ModelConfig
from musicvae.model.objective import TrainingConfig
from musicvae.music.midi import STEPS_PER_BAR
from musicvae.music.representation import representation

SIZES = ("small", "medium", "paper")


@dataclass(frozen=True)
class Preset:
    """A model of the paper (section 5.2): a representation, a number of bars, and with or without hierarchy."""

    name: str
    representation: str
    bars: int
    flat: bool

    def model(self, size: str, vocab_sizes: tuple[int, ...] = ()) -> ModelConfig:
        """The model at one of the SIZES, for the preset's own representation unless told otherwise.

        Raises ValueError for a size that is none of the SIZES.
        """
        widths = (_ORIGINAL if self.representation == "melody-90" and self.bars == 2 else _WIDTHS)[
            _known("size", size, SIZES)
        ]
        kind = "flat" if self.flat else "hierarchical"
        units = _TWIN_UNITS.get((size, self.representation)) if self.flat and self.bars > 2 else None
        own: dict[str, int] = {"decoder_units": units} if units else {}
        if self.bars > 2 and size != "paper":  # 256 steps in a row are too far (LOG.md)
            own |= {"encoder_bars": self.bars, "linear": not self.flat, **_LINEAR[size]}
            own |= {"condition_size": widths["hierarchical"]["condition_size"]}  # a flat one has summaries as long
        return ModelConfig(
            vocab_sizes or representation(self.representation).vocab_sizes,
            steps=self.bars * STEPS_PER_BAR,
            bars=1 if self.flat else self.bars,
            **{**widths["shared"], **widths[kind], **own},  # type: ignore[arg-type]
        )

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings of a RunConfig by which samples of the trained model go through its prior (LOG.md)."""
        if not self.representation.startswith("melody"):
            return {}
        return {"rounds": 2} if self.flat else {"rounds": 1, "spread": 0.75}

    def training(self, size: str) -> TrainingConfig:
        """How the model of that size is trained. Raises ValueError for a size that is none of the SIZES."""
        _known("size", size, SIZES)
        if size == "paper":
            return TrainingConfig(
                steps=50_000 if self.bars <= 2 else 100_000,
                batch_size=512,
                learning_rate_schedule="exponential",
                warmup=0.0,
                beta_schedule="exponential" if self.bars <= 2 else "constant",
                free_bits=48.0 if self.bars <= 2 else 256.0,
            )
        return TrainingConfig(
            steps=_STEPS[size],
            batch_size=(32 if self.bars <= 2 else 16) if size == "small" else 128,
            beta=0.1,
            beta_schedule="constant",
            free_bits=_FREE_BITS[self.representation.removesuffix("-90")][self.bars > 2] * self.bars,
            token_dropout=0.3,
            bars_share=0.5,
            prior_share=0.2,
            distortion=0.03,
            log_every=100,
            validate_every=500,
            checkpoint_every=500,
            listen_every=2000,
        )


_WIDTHS: dict[str, dict[str, dict[str, int]]] = {
    "small": {
        "shared": {"latent_size": 128, "encoder_units": 256, "encoder_layers": 1, "decoder_layers": 2},
        "flat": {"decoder_units": 256},
        "hierarchical": {"decoder_units": 256, "conductor_units": 256, "condition_size": 128},
    },
    "medium": {
        "shared": {"latent_size": 256, "encoder_units": 512, "encoder_layers": 2, "decoder_layers": 2},
        "flat": {"decoder_units": 512},
        "hierarchical": {"decoder_units": 512, "conductor_units": 512, "condition_size": 256},
    },
    "paper": {
        "shared": {"latent_size": 512, "encoder_units": 2048, "encoder_layers": 2},
        "flat": {"decoder_units": 2048, "decoder_layers": 3},
        "hierarchical": {"decoder_units": 1024, "decoder_layers": 2, "conductor_units": 1024, "condition_size": 512},
    },
}
_LINEAR = {  # beside a linear path LSTMs add little (LOG.md): few units, and many numbers in z
    "small": {"encoder_units": 192, "conductor_units": 96, "latent_size": 448},
    "medium": {"encoder_units": 384, "conductor_units": 192, "latent_size": 512},
}
_TWIN_UNITS = {  # of the flat decoder, so that it has as many parameters as its hierarchical twin, within 10 %
    ("small", "melody"): 384,
    ("small", "drums"): 368,
    ("small", "trio"): 480,
    ("medium", "melody"): 720,
    ("medium", "drums"): 704,
    ("medium", "trio"): 992,
}
_ORIGINAL: dict[str, dict[str, dict[str, int]]] = {  # of the 2-bar melodies that the paper's authors published
    "small": {
        "shared": {"latent_size": 256, "encoder_units": 512, "encoder_layers": 1},
        "flat": {"decoder_units": 256, "decoder_layers": 2},
    },
    "medium": _WIDTHS["medium"],
    "paper": {
        "shared": {"latent_size": 512, "encoder_units": 2048, "encoder_layers": 1},
        "flat": {"decoder_units": 2048, "decoder_layers": 3},
    },
}
_FREE_BITS = {  # a bar, of up to two bars and of more; the paper's 24 and 16 are a wall for short trainings (LOG.md)
    "melody": (80.0, 48.0),
    "drums": (64.0, 64.0),
    "trio": (144.0, 112.0),
}
_STEPS = {"small": 12_000, "medium": 30_000}

PRESETS = ("melody-2", "melody-90", "drums-2", "melody-16", "drums-16", "trio-16") + (
    *("melody-16-flat", "drums-16-flat", "trio-16-flat"),
)  # those of the paper; any other number of bars is one by rule
LONGEST = 32  # bars
RULE = re.compile(r"(melody|melody-90|drums|trio|trio-90)-(\d{1,2})(-flat)?")


def preset(name: str) -> Preset:
    """A preset by name: REPRESENTATION-BARS, flat to two bars and hierarchical above, or flat by name.

    melody-90 is melody-2 with the tokens and widths of the original. Raises ValueError for other names.
    """
    if name == "melody-90":
        return Preset(name, "melody-90", 2, flat=True)
    found = RULE.fullmatch(name)
    if found is None or not 1 <= int(found[2]) <= LONGEST:
        raise ValueError(
            f"no preset {name!r}; known are {', '.join(PRESETS)}, and others by rule: melody, drums or trio, "
            f"a number of bars from 1 to {LONGEST}, and -flat for one decoder of more than 2 bars, as in drums-8"
        )
    bars = int(found[2])
    return Preset(name, found[1], bars, flat=bars <= 2 or found[3] is not None)


def change(model: ModelConfig, training: TrainingConfig, settings: list[str]) -> tuple[ModelConfig, TrainingConfig]:
    """Applies settings such as "training.batch_size=64" or "model.bar_start=previous".

    Raises ValueError for a form, a name or a value that is none, naming those that are.
    """
    parts: dict[str, Any] = {"model": model, "training": training}
    for setting in settings:
        key, sign, text = setting.partition("=")
        part, dot, name = key.partition(".")
        hint = _nearest(key, model, training)
        if not sign or not dot or part not in parts:
            raise ValueError(f"setting {setting!r}; write model.NAME=VALUE or training.NAME=VALUE{hint}")
        known = {f.name: type(getattr(parts[part], f.name)) for f in fields(parts[part])}
        known = {n: t for n, t in known.items() if t in (int, float, str, bool)}
        if name not in known:
            raise ValueError(f"no setting in {part} {name!r}{hint}; known are {', '.join(known)}")
        try:
            value = _flag(text) if known[name] is bool else known[name](text)
        except ValueError:
            raise ValueError(f"setting {key} is {text!r}; it must be of type {known[name].__name__}") from None
        parts[part] = replace(parts[part], **{name: value})
    return parts["model"], parts["training"]


def _nearest(key: str, model: ModelConfig, training: TrainingConfig) -> str:
    """The setting that was meant, in brackets: one of that name in either half, else one much like it."""
    known = [f"{part}.{f.name}" for part, of in (("model", model), ("training", training)) for f in fields(of)]
    same = [name for name in known if name.partition(".")[2] == key.rpartition(".")[2]]
    close = same or difflib.get_close_matches(key, known, 1) or _alike(key, known)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _alike(key: str, known: list[str]) -> list[str]:
    """The setting whose name without its half is most like this one."""
    plain = {name.partition(".")[2]: name for name in known}
    return [plain[name] for name in difflib.get_close_matches(key.rpartition(".")[2], plain, 1)]


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _known(what: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise ValueError(f"no {what} {name!r}; known are {', '.join(names)}")
    return name
