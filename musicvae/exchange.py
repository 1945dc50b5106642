"""Models from elsewhere and for elsewhere: a checkpoint of the original becomes a run, a run a magenta.js folder."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from musicvae.composer import Composer, load
from musicvae.files import replacing
from musicvae.limits import check_free
from musicvae.model.bundle import Bundle
from musicvae.model.checkpoint import save_run
from musicvae.model.config import RunConfig
from musicvae.model.crc32c import compiled
from musicvae.model.magenta import export_weights, hears_bits, import_weights
from musicvae.model.magenta_names import DRUM_BITS, Original, recognise
from musicvae.model.onnx import export_onnx
from musicvae.model.player import Player
from musicvae.model.tfjs import CONFIG, SHARD, Folder, write_folder
from musicvae.music.midi import STEPS_PER_BAR
from musicvae.music.representation import DRUM_MAPS, NAMES, representation
from musicvae.opening import open_checkpoint, source_name

LICENCE = "Apache-2.0 (Google, Magenta project)"
DRUM_MAP = "2018"  # of what Magenta published, and of magenta.js where its config says nothing else
CONVERTERS = ("MelodyConverter", "DrumsConverter", "DrumsOneHotConverter", "TrioConverter")
UNSUPPORTED = {
    "GrooveConverter": "GrooVAE",
    "MultitrackConverter": "multitrack models",
    "DrumRollConverter": "drums with a NADE or Boolean decoder",
    "MelodyRhythmConverter": "rhythms without pitch",
    "MelodyShapeConverter": "shapes of melodies",
    "TrioRhythmConverter": "rhythms of trios",
    "chordEncoder": "conditioning on chords",
    "conditionOnKey": "conditioning on a key",
    "extraControls": "conditioning on other controls",
    "useBooleanDecoder": "a Boolean decoder",
}


class Converter(NamedTuple):
    """What the config.json of a magenta.js folder says of its music; None where it says nothing."""

    steps: int | None = None
    segments: int | None = None  # bars of a hierarchical model
    pitches: tuple[int, int] | None = None  # lowest and highest
    drum_map: str | None = None


class Window(NamedTuple):
    """How long the windows of a model are, and how we know."""

    steps: int
    bars: int  # of the model: 1 if it is flat
    known_from: str


class Import(NamedTuple):
    """What became of an import."""

    config: RunConfig
    lines: list[str]  # for the user


# --- from elsewhere ------------------------------------------------------------------------------------------------


def import_checkpoint(
    path: Path, out: Path, bars: int | None = None, drum_map: str | None = None, licence: str = LICENCE
) -> Import:
    """A checkpoint of the original (a bundle, a magenta.js folder, or an archive of one) -> a run in the folder `out`.

    `bars` and `drum_map` are taken from the checkpoint unless given. Raises ValueError, and writes nothing, for what is
    no checkpoint, or damaged, or not supported yet.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already. Give another --out, for a new run")
    beside = next(folder for folder in out.absolute().parents if folder.is_dir())
    try:
        with open_checkpoint(path, beside) as weights:
            original, converter = recognise(weights.shapes), read_converter(weights)
            window = find_window(original, converter, bars, source_name(path))
            kind = find_representation(original, converter)
            imported = import_weights(weights, original, window.steps, window.bars)
            step, checked = weights.step, verified(weights)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    has_drums = 512 in original.vocab_sizes
    source = {"name": source_name(path), "family": family(original, window), "licence": licence}
    config = RunConfig(
        name=source["name"],
        representation=kind,
        drum_map=(drum_map or converter.drum_map or DRUM_MAP) if has_drums else "current",
        model=imported.model.config,
        trained={**({} if step is None else {"steps": step}), "encodes": imported.encodes, "source": source},
    )
    lines = describe(config, original, window, checked)
    save_run(out, imported.model, config)
    with replacing(out / "README.md") as temporary:
        temporary.write_text(model_card(path, config, lines), encoding="utf-8")
    return Import(config, lines)


def read_converter(weights: Bundle | Folder) -> Converter:
    """config.json of a magenta.js folder. Raises ValueError for models that are known by name and not supported yet."""
    if not isinstance(weights, Folder) or weights.config is None:
        return Converter()
    config: dict[str, Any] = weights.config
    converter = config.get("dataConverter")
    if config.get("type") != "MusicVAE" or not isinstance(converter, dict):
        raise ValueError(f"{CONFIG} is of type {config.get('type')!r}; only MusicVAE can be imported")
    kind, args = converter.get("type"), converter.get("args")
    for sign in (kind, *(key for key in config if config[key])):
        if sign in UNSUPPORTED:
            raise ValueError(f"recognised, but not supported yet: {UNSUPPORTED[sign]} ({sign} in {CONFIG})")
    if kind not in CONVERTERS or not isinstance(args, dict):
        raise ValueError(f"{CONFIG} has the converter {kind!r}; known are {', '.join(CONVERTERS)}")
    drums, melody = (args.get("drumsArgs"), args.get("melArgs")) if kind == "TrioConverter" else (args, args)
    drums, melody = (part if isinstance(part, dict) else {} for part in (drums, melody))
    lowest, highest = melody.get("minPitch"), melody.get("maxPitch")
    return Converter(
        steps=_positive("numSteps", args.get("numSteps")),
        segments=_positive("numSegments", args.get("numSegments")),
        pitches=None if lowest is None or highest is None else (lowest, highest),
        drum_map=_drum_map(drums["pitchClasses"]) if drums.get("pitchClasses") else None,
    )


def find_window(original: Original, converter: Converter, bars: int | None, name: str) -> Window:
    """How long windows are, which no variable says: as given, as config.json says, by the name, or by the family."""
    named = re.search(r"(?<!\d)(\d{1,2})[-_ ]?bars?(?![a-z])", name)
    if bars is not None:
        steps, known_from = bars * STEPS_PER_BAR, "as given"
    elif converter.steps is not None:
        steps, known_from = converter.steps, f"by its {CONFIG}"
    elif named and int(named[1]):
        steps, known_from = int(named[1]) * STEPS_PER_BAR, f"by the name {name}"
    else:
        long = not original.flat or original.encoder_layers > 1
        steps, known_from = (256 if long else 32), "as all of its family; --bars tells otherwise"
    segments = converter.segments if bars is None and converter.segments else steps // STEPS_PER_BAR
    if steps < STEPS_PER_BAR or steps % STEPS_PER_BAR or (not original.flat and (segments < 2 or steps % segments)):
        raise ValueError(f"windows of {steps} steps ({known_from}) are no whole bars, or too few; give --bars")
    if original.flat and converter.segments:
        raise ValueError(
            f"{CONFIG} asks for {converter.segments} segments, but the variables are those of a flat model"
        )
    return Window(steps, 1 if original.flat else segments, known_from)


def find_representation(original: Original, converter: Converter) -> str:
    """The name of the representation with these tokens. Raises ValueError for melodies of another range."""
    kind = next(name for name in NAMES if representation(name).vocab_sizes == original.vocab_sizes)
    ranges = {90: (21, 108), 130: (0, 127)}
    wanted = ranges.get(original.vocab_sizes[0])
    if wanted and converter.pitches not in (None, wanted):
        raise ValueError(f"{CONFIG} has pitches {converter.pitches}; {kind} has {wanted}, and others are not supported")
    return kind


def verified(weights: Bundle | Folder) -> str:
    """What was looked at to know that the files are whole."""
    if isinstance(weights, Bundle):
        return f"checksums of all tensors verified ({'compiled' if compiled() else 'with NumPy'})"
    return "sizes verified; these folders have no checksums"


def family(original: Original, window: Window) -> str:
    """What the original calls a model of this structure, such as hierdec-trio_16bar."""
    bars = window.steps // STEPS_PER_BAR
    kind = "trio" if len(original.vocab_sizes) > 1 else "drums" if original.vocab_sizes == (512,) else "mel"
    return f"{'cat' if original.flat and bars == 2 else 'flat' if original.flat else 'hierdec'}-{kind}_{bars}bar"


def describe(config: RunConfig, original: Original, window: Window, checked: str) -> list[str]:
    """What was imported, for the user, a fact a line."""
    model, source = config.model, config.trained["source"]
    kind = config.representation + (f" (drum map {config.drum_map})" if 512 in model.vocab_sizes else "")
    conductor = "" if original.flat else f"conductor {model.conductor_layers} x {model.conductor_units}, "
    steps = config.trained.get("steps")
    lines = [
        f"{source['family']}: {kind}, windows of {window.steps // STEPS_PER_BAR} bars ({window.known_from})",
        f"encoder {model.encoder_layers} x {model.encoder_units}, {conductor}"
        f"decoder {model.decoder_layers} x {model.decoder_units}, z {model.latent_size}",
        f"{'trained for an unknown number of steps' if steps is None else f'{steps:,} steps of training'}; {checked}",
    ]
    if not config.encodes:
        missing = "holds no encoder" if original.absent else "has an encoder of zeros only"
        lines.append(f"it samples and decodes, but cannot encode: the checkpoint {missing}")
    return lines


def model_card(path: Path, config: RunConfig, lines: list[str]) -> str:
    """The README.md of an imported run."""
    source = config.trained["source"]
    facts = "".join(f"* {line}\n" for line in lines)
    return f"""# {config.name}

Imported by `musicvae import` from `{path.name}`, a checkpoint of the original MusicVAE (Roberts et al. 2018).

{facts}* licence of the weights: {source["licence"]}

The weights are those of the checkpoint, laid out anew; nothing was trained or changed. A first step of a bar hears the
last token of the bar before, and the conductor's outputs reach the bars as they are, as in the original.
"""


# --- for elsewhere -------------------------------------------------------------------------------------------------


def export_magenta_js(model: str, out: Path, overwrite: bool = False) -> list[str]:
    """A run, or a model in the box, -> a folder that magenta.js loads; returns what the user should know.

    Raises ValueError, and writes nothing, for a model that magenta.js cannot load, with what could be.
    """
    check_free(out, "--magenta-js", overwrite)
    composer = load(model)
    check_exportable(composer)
    inputs = DRUM_BITS if hears_bits(composer.model) else sum(composer.model.config.vocab_sizes)
    converter = data_converter(composer, inputs)
    write_folder(out, {"type": "MusicVAE", "dataConverter": converter}, export_weights(composer.model, inputs))
    size = (out / SHARD).stat().st_size / 1e6
    lines = [f"{converter['type']} of {composer.steps} steps, {size:.1f} MB"]
    if not composer.config.encodes:
        lines.append("it samples and decodes, but cannot encode: its encoder is all zero")
    return lines


def export_onnx_runtime(model: str, out: Path, overwrite: bool = False) -> list[str]:
    """A run, or a model in the box, -> a folder that ONNX Runtime decodes from; returns what the user should know."""
    check_free(out, "--onnx", overwrite)
    composer = load(model)
    assert isinstance(composer.player, Player), "it was loaded for the CPU"
    export_onnx(composer.player, composer.config, out)
    sizes = [sum(p.stat().st_size for p in out.glob(kind)) / 1e6 for kind in ("*.onnx", "*.int8.onnx")]
    return [f"the decoder of {composer.name}: fp32 {sizes[0] - sizes[1]:.1f} MB, int8 {sizes[1]:.1f} MB"]


def check_exportable(composer: Composer) -> None:
    """ValueError that says why magenta.js cannot load a model, and which setting would change that."""
    config, reasons, settings = composer.model.config, [], []
    if len(config.vocab_sizes) > 1:
        reasons.append("its streams come from one decoder" if config.bars == 1 else "it writes several streams")
        settings.append("a preset of melody or drums")
    if config.bars > 1:
        reasons.append("it is hierarchical, and there such models have a hierarchical encoder")
        settings.append("a flat preset, such as melody-2, drums-2 or melody-16-flat")
    if config.encoder_bars > 1:
        reasons.append("its encoder reads bars before it reads windows")
        settings.append("--set model.encoder_bars=1")
    if config.encoder_layers > 1:
        reasons.append(f"its encoder has {config.encoder_layers} layers, and magenta.js knows one")
        settings.append("--set model.encoder_layers=1")
    if reasons:
        raise ValueError(
            f"magenta.js cannot load {composer.name}: {'; '.join(reasons)}. What it can: a model trained with "
            f"{' and '.join(settings)}"
        )


def data_converter(composer: Composer, inputs: int) -> dict[str, Any]:
    """The part of config.json that says how notes become tokens: their melodies and drums are ours."""
    kind = composer.representation
    if kind.name == "drums":
        classes = DRUM_MAPS[composer.config.drum_map or "current"]
        own = {} if composer.config.drum_map == DRUM_MAP else {"pitchClasses": [list(pitches) for pitches in classes]}
        name = "DrumsConverter" if inputs == DRUM_BITS else "DrumsOneHotConverter"
        return {"type": name, "args": {"numSteps": composer.steps, **own}}
    pitches = {"minPitch": kind.lowest, "maxPitch": kind.highest}  # type: ignore[union-attr]
    return {"type": "MelodyConverter", "args": {"numSteps": composer.steps, **pitches}}


def _positive(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or not 0 < value <= 65536:
        raise ValueError(f"{CONFIG} has {name} {value!r}, which is no number of steps")
    return value


def _drum_map(classes: Any) -> str:
    for name, ours in DRUM_MAPS.items():
        if classes == [list(pitches) for pitches in ours]:
            return name
    raise ValueError(f"{CONFIG} has drum classes of its own, which is not supported; known are {', '.join(DRUM_MAPS)}")
