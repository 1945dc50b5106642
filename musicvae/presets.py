"""The paper's models by name: what music they hold, and how they are built and trained at three sizes."""

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
        widths = (_ORIGINAL if self.representation == "melody-90" else _WIDTHS)[_known("size", size, SIZES)]
        kind = "flat" if self.flat else "hierarchical"
        units = _TWIN_UNITS.get((size, self.representation)) if self.flat and self.bars > 2 else None
        own = {"decoder_units": units} if units else {}
        own |= _READERS.get(size, {}) if self.bars > 2 else {}
        if "encoder_bars" in own:  # a flat model has a reader as wide, and summaries as long
            own |= {name: widths["hierarchical"][name] for name in ("conductor_units", "condition_size")}
        return ModelConfig(
            vocab_sizes or representation(self.representation).vocab_sizes,
            steps=self.bars * STEPS_PER_BAR,
            bars=1 if self.flat else self.bars,
            **{**widths["shared"], **widths[kind], **own},  # type: ignore[arg-type]
        )

    def training(self, size: str) -> TrainingConfig:
        """How the model of that size is trained. Raises ValueError for a size that is none of the SIZES."""
        _known("size", size, SIZES)
        if size == "paper":
            return TrainingConfig(
                steps=50_000 if self.bars == 2 else 100_000,
                batch_size=512,
                learning_rate_schedule="exponential",
                warmup=0.0,
                beta_schedule="exponential" if self.bars == 2 else "constant",
                free_bits=48.0 if self.bars == 2 else 256.0,
            )
        return TrainingConfig(
            steps=_STEPS[size],
            batch_size=32 if size == "small" else 128,
            free_bits=_FREE_BITS[self.bars],
            token_dropout=0.3,
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
_READERS = {"small": {"encoder_bars": 16, "latent_size": 256}}  # 256 steps are too far (LOG.md)
_TWIN_UNITS = {  # of the flat decoder, so that it has as many parameters as its hierarchical twin, within 10 %
    ("small", "melody"): 336,
    ("small", "drums"): 320,
    ("small", "trio"): 464,
    ("medium", "melody"): 736,
    ("medium", "drums"): 704,
    ("medium", "trio"): 1024,
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
_FREE_BITS = {2: 128.0, 16: 448.0}  # by bars; the paper's 48 and 256 are a wall for short trainings (LOG.md)
_STEPS = {"small": 12_000, "medium": 30_000}

PRESETS = {
    preset.name: preset
    for preset in (
        Preset("melody-2", "melody", 2, flat=True),
        Preset("melody-90", "melody-90", 2, flat=True),  # melody-2 with the tokens and widths of the original
        Preset("drums-2", "drums", 2, flat=True),
        Preset("melody-16", "melody", 16, flat=False),
        Preset("drums-16", "drums", 16, flat=False),
        Preset("trio-16", "trio", 16, flat=False),
        Preset("melody-16-flat", "melody", 16, flat=True),
        Preset("drums-16-flat", "drums", 16, flat=True),
        Preset("trio-16-flat", "trio", 16, flat=True),
    )
}


def preset(name: str) -> Preset:
    """A preset by name. Raises ValueError that lists the known ones."""
    return PRESETS[_known("preset", name, tuple(PRESETS))]


def change(model: ModelConfig, training: TrainingConfig, settings: list[str]) -> tuple[ModelConfig, TrainingConfig]:
    """Applies settings such as "training.batch_size=64" or "model.bar_start=previous".

    Raises ValueError for a form, a name or a value that is none, naming those that are.
    """
    parts: dict[str, Any] = {"model": model, "training": training}
    for setting in settings:
        key, sign, text = setting.partition("=")
        part, dot, name = key.partition(".")
        if not sign or not dot or part not in parts:
            raise ValueError(f"setting {setting!r}; write model.NAME=VALUE or training.NAME=VALUE")
        known = {f.name: type(getattr(parts[part], f.name)) for f in fields(parts[part])}
        known = {n: t for n, t in known.items() if t in (int, float, str)}
        _known(f"setting in {part}", name, tuple(known))
        try:
            value = known[name](text)
        except ValueError:
            raise ValueError(f"setting {key} is {text!r}; it must be of type {known[name].__name__}") from None
        parts[part] = replace(parts[part], **{name: value})
    return parts["model"], parts["training"]


def _known(what: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise ValueError(f"no {what} {name!r}; known are {', '.join(names)}")
    return name
