"""The original's variables: what their names and shapes say of a model, and which of them is which tensor of ours.

Theirs is a kernel [inputs, outputs] and a bias for each dense layer and for each layer and direction of an LSTM.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from musicvae.model.config import ModelConfig

Shapes = Mapping[str, tuple[int, ...]]

DRUM_BITS, DRUM_TOKENS = 10, 512  # their drum encoder hears nine classes and "nothing hit"
GROOVE = 27  # hits, velocities and offsets of nine classes
VOCABULARIES = {  # tokens that a model may write in a step, over all streams -> in each stream
    90: (90,),
    130: (130,),
    512: (512,),
    692: (90, 90, 512),
    772: (130, 130, 512),
}
MAX_LAYERS, MAX_ABSENT_UNITS = 16, 4096  # twice those of any model of the original, or more
IGNORED = ("Adam", "Adam_1", "beta1_power", "beta2_power", "global_step", "opaque_kernel")
CONDUCTOR = "decoder/hierarchical_level_0"


class Cell(NamedTuple):
    """One layer of an LSTM in one direction; its kernel is [inputs + units, 4 * units]."""

    theirs: str
    ours: str  # with {} for weight_ih, bias_ih and so on
    inputs: int
    units: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.inputs + self.units, 4 * self.units


class Dense(NamedTuple):
    theirs: str
    ours: str
    inputs: int
    outputs: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.inputs, self.outputs


@dataclass(frozen=True)
class Original:
    """What the names and shapes of a checkpoint say of its model; how long its windows are they do not say."""

    vocab_sizes: tuple[int, ...]
    encoder_inputs: int  # 10 where a drum encoder hears bits
    latent_size: int
    encoder_units: int
    encoder_layers: int
    conductor_units: int  # 0 for a flat model
    conductor_layers: int
    decoder_units: int
    decoder_layers: int
    absent: tuple[str, ...]  # what the names begin with that a decoder without its encoder lacks

    @property
    def flat(self) -> bool:
        return not self.conductor_units

    def model_config(self, steps: int, bars: int) -> ModelConfig:
        """The model for windows of so many steps; bars is 1 for a flat model."""
        conductor: dict[str, Any] = {"conductor_units": self.conductor_units, "condition_size": self.conductor_units}
        conductor |= {"conductor_layers": self.conductor_layers, "bar_start": "previous"}
        return ModelConfig(
            self.vocab_sizes,
            steps,
            bars,
            latent_size=self.latent_size,
            encoder_units=self.encoder_units,
            encoder_layers=self.encoder_layers,
            decoder_units=self.decoder_units,
            decoder_layers=self.decoder_layers,
            **({} if self.flat else conductor),
        )


def recognise(shapes: Shapes) -> Original:
    """The model that names and shapes describe. Raises ValueError for another one, or where it cannot be told."""
    refuse_unsupported(shapes)
    hierarchical = any(name.startswith(("core_decoder/", f"{CONDUCTOR}/")) for name in shapes)
    decoders = _decoders(shapes, hierarchical)
    depth = sum(_size(shapes, f"{decoder}/output_projection/bias", 0) for decoder in decoders)
    decoder_units = _size(shapes, f"{decoders[0]}/output_projection/kernel", 0)
    absent = () if any(name.startswith("encoder/cell_") for name in shapes) else ("encoder/cell_",)
    if absent and not any(name.startswith(("encoder/mu/", "encoder/sigma/")) for name in shapes):
        absent = ("encoder/",)
    inputs, encoder_units = _encoder(shapes, absent, depth, decoder_units)
    return Original(
        vocab_sizes=_vocabulary(depth, inputs, len(decoders), hierarchical),
        encoder_inputs=inputs,
        latent_size=_size(shapes, f"{CONDUCTOR if hierarchical else 'decoder'}/{_start(hierarchical)}/kernel", 0),
        encoder_units=encoder_units,
        encoder_layers=1 if absent else _layers(shapes, "encoder/cell_"),
        conductor_units=_size(shapes, f"{CONDUCTOR}/cell_0/lstm_cell/bias", 0) // 4 if hierarchical else 0,
        conductor_layers=_layers(shapes, f"{CONDUCTOR}/cell_") if hierarchical else 0,
        decoder_units=decoder_units,
        decoder_layers=_layers(shapes, f"{decoders[0]}/multi_rnn_cell/cell_"),
        absent=absent,
    )


def layout(config: ModelConfig, encoder_inputs: int) -> Iterator[Cell | Dense]:
    """Every variable of theirs beside its tensor of ours; only our `to_condition` has none."""
    units, z = config.encoder_units, config.latent_size
    for layer in range(config.encoder_layers):
        for way, suffix in (("fw", ""), ("bw", "_reverse")):
            theirs = f"encoder/cell_{layer}/bidirectional_rnn/{way}/multi_rnn_cell/cell_0/lstm_cell"
            yield Cell(theirs, f"encoder.{{}}_l{layer}{suffix}", 2 * units if layer else encoder_inputs, units)
    yield Dense("encoder/mu", "to_mu", 2 * units, z)
    yield Dense("encoder/sigma", "to_sigma", 2 * units, z)
    hierarchical = config.bars > 1
    if hierarchical:
        units, layers = config.conductor_units, config.conductor_layers
        yield Dense(f"{CONDUCTOR}/{_start(True)}", "conductor_start.dense", z, 2 * layers * units)
        for layer in range(layers):
            theirs = f"{CONDUCTOR}/cell_{layer}/lstm_cell"
            yield Cell(theirs, f"conductor.{{}}_l{layer}", units if layer else 1, units)
    streams = config.vocab_sizes if hierarchical else (sum(config.vocab_sizes),)
    for i, depth in enumerate(streams):
        theirs = _decoder(i, len(streams)) if hierarchical else "decoder"
        yield from _decoder_layout(config, theirs, f"decoders.{i}", config.condition_size if hierarchical else z, depth)


def _decoder_layout(config: ModelConfig, theirs: str, ours: str, condition: int, depth: int) -> Iterator[Cell | Dense]:
    units, layers = config.decoder_units, config.decoder_layers
    yield Dense(f"{theirs}/{_start(False)}", f"{ours}.start.dense", condition, 2 * layers * units)
    for layer in range(layers):
        name = f"{theirs}/multi_rnn_cell/cell_{layer}/lstm_cell"
        yield Cell(name, f"{ours}.lstm.{{}}_l{layer}", units if layer else depth + condition, units)
    yield Dense(f"{theirs}/output_projection", f"{ours}.to_logits", units, depth)


# --- what does not fit ---------------------------------------------------------------------------------------------


def refuse_unsupported(shapes: Shapes) -> None:
    """ValueError for the models of the original's family that are known by name and not supported yet."""
    parts = {part for name in shapes for part in name.split("/")}
    outputs = [shape for name, shape in shapes.items() if name.endswith("output_projection/bias")]
    found = ""
    if "nade" in parts:
        found = "a NADE decoder"
    elif any(name.startswith("encoder/hierarchical_level_") for name in shapes):
        found = "a hierarchical encoder (multitrack models, and those of 16 bars of magenta.js)"
    elif "control_preprocessing" in parts:
        found = "conditioning on chords or other controls"
    elif any(name.startswith("core_decoder_0/") for name in shapes):
        found = "a flat model with a decoder for each stream"
    elif (GROOVE,) in outputs:
        found = "GrooVAE (hits, velocities and timing)"
    if found:
        raise ValueError(f"recognised, but not supported yet: {found}")
    if not any(name.startswith(("decoder/", "core_decoder/")) for name in shapes):
        held = ", ".join(list(shapes)[:3]) or "none"
        raise ValueError(f"no model of MusicVAE: none of its variables belongs to a decoder (found: {held})")


def check_variables(shapes: Shapes, parts: list[Cell | Dense], absent: tuple[str, ...]) -> None:
    """ValueError that names every missing variable, the first of a wrong shape, or those that nobody knows."""
    wanted: dict[str, tuple[int, ...]] = {}
    for part in parts:
        if not part.theirs.startswith(absent):
            wanted |= {f"{part.theirs}/kernel": part.shape, f"{part.theirs}/bias": part.shape[1:]}
    missing = [name for name in wanted if name not in shapes]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise ValueError(f"it lacks {', '.join(missing[:8])}{more}")
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise ValueError(
                f"{name} has shape {shapes[name]}; the others ask for {shape}{_why(name, shapes[name], shape)}"
            )
    ours = ("encoder/", "decoder/", "core_decoder/")
    unknown = [n for n in shapes if n.startswith(ours) and n not in wanted and n.rsplit("/", 1)[-1] not in IGNORED]
    if unknown:
        raise ValueError(f"it has variables that are part of no model known here: {', '.join(unknown[:5])}")


def _why(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    first = name.endswith("decoder/multi_rnn_cell/cell_0/lstm_cell/kernel")
    if first and found[1:] == wanted[1:] and found[:1] > wanted[:1]:
        return f". A decoder conditioned on {found[0] - wanted[0]} more inputs (chords, a key) is not supported yet"
    return ""


# --- parts of names, sizes -----------------------------------------------------------------------------------------


def _start(conductor: bool) -> str:
    return "initial_state" if conductor else "z_to_initial_state"


def _decoder(stream: int, streams: int) -> str:
    """What the names of a bar decoder begin with."""
    return "core_decoder/decoder" if streams == 1 else f"core_decoder/core_decoder_{stream}/decoder"


def _decoders(shapes: Shapes, hierarchical: bool) -> list[str]:
    if not hierarchical:
        return ["decoder"]
    apart = any(name.startswith("core_decoder/core_decoder_") for name in shapes)
    return [_decoder(i, 3) for i in range(3)] if apart else [_decoder(0, 1)]


def _encoder(shapes: Shapes, absent: tuple[str, ...], depth: int, decoder_units: int) -> tuple[int, int]:
    """What the encoder hears, and its units; of an absent one what its other half lets guess."""
    if not absent:
        cell = "encoder/cell_0/bidirectional_rnn/fw/multi_rnn_cell/cell_0/lstm_cell"
        units = _size(shapes, f"{cell}/bias", 0) // 4
        return _size(shapes, f"{cell}/kernel", 0) - units, units
    units = decoder_units if absent == ("encoder/",) else _size(shapes, "encoder/mu/kernel", 0) // 2
    if units > MAX_ABSENT_UNITS:
        raise ValueError(f"it lacks the encoder, and one of {units} units is none of the original")
    return DRUM_BITS if depth == DRUM_TOKENS else depth, units


def _vocabulary(depth: int, inputs: int, decoders: int, hierarchical: bool) -> tuple[int, ...]:
    sizes = VOCABULARIES.get(depth, ())
    fits = inputs == depth or (inputs, depth) == (DRUM_BITS, DRUM_TOKENS)
    if not sizes or not fits or (hierarchical and decoders != len(sizes)):
        known = ", ".join(map(str, VOCABULARIES))
        raise ValueError(
            f"a model that hears {inputs} inputs and writes {depth} tokens a step is none of melody, drums or trio "
            f"(known are {known} tokens, and {DRUM_BITS} inputs for drums)"
        )
    return sizes


def _size(shapes: Shapes, name: str, axis: int) -> int:
    if name not in shapes:
        raise ValueError(f"it lacks {name}")
    if len(shapes[name]) <= axis:
        raise ValueError(f"{name} has shape {shapes[name]}, which is none of a model")
    return shapes[name][axis]


def _layers(shapes: Shapes, prefix: str) -> int:
    found = (re.match(r"\d{1,9}(?=/)", name[len(prefix) :]) for name in shapes if name.startswith(prefix))
    layers = 1 + max((int(match[0]) for match in found if match), default=0)
    if layers > MAX_LAYERS:
        raise ValueError(f"{prefix}{layers - 1} is none of the original: no model has more than {MAX_LAYERS} layers")
    return layers
