"""A run folder <-> a model: config.json, readable by eye, and model.safetensors beside it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError

from musicvae.files import replacing
from musicvae.model.prior import PRIOR
from musicvae.model.vae import ModelConfig, MusicVAE

FORMAT = 1
LONGEST_NAME = 100
CONFIG, WEIGHTS = "config.json", "model.safetensors"


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


class Run(NamedTuple):
    model: MusicVAE
    config: RunConfig


def save_run(folder: str | Path, model: MusicVAE, config: RunConfig, half: bool = False) -> None:
    """Writes model.safetensors, then config.json, each whole at every moment; half stores the weights in fp16.

    A prior that lies there goes away: it was learnt for the weights before.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors))
        (folder / PRIOR).unlink(missing_ok=True)  # only now that the new weights are on the disk
    with replacing(folder / CONFIG) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> Run:
    """The model of a run folder, in fp32 and eval mode; ValueError says what is wrong with the folder or the device."""
    config, device = load_config(folder), find_device(device)
    path = Path(folder) / WEIGHTS
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {WEIGHTS}, so it is no complete run folder") from None
    except (SafetensorError, OSError, KeyError) as error:  # KeyError for a kind of number that torch has not
        raise ValueError(f"{path} cannot be read ({error}). It may have been cut short: copy it again") from None
    with torch.device("meta"):  # shapes only: no time is spent on weights that are replaced at once
        model = MusicVAE(config.model)
    check_tensors(path, {name: value.shape for name, value in model.state_dict().items()}, tensors)
    weights = {name: value.to(device, torch.float32) for name, value in tensors.items()}
    for name, value in weights.items():
        if not all(bound.isfinite() for bound in value.aminmax()):  # which nothing but NaN and infinity escapes
            raise ValueError(
                f"{path}: the tensor {name} has numbers that are not finite. Copy it again, or train again"
            )
    model.load_state_dict(weights, assign=True)
    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            module.flatten_parameters()  # cuDNN wants the weights of a layer in one piece
    return Run(model.eval(), config)


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name; auto is cuda where there is one. ValueError for one that cannot be used here."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
        if torch.device(device).type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise ValueError(f"the device {str(device)!r} cannot be used here ({why}); use cpu, or auto") from None
    return torch.device(device)


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


def check_tensors(path: Path, wanted: dict[str, torch.Size], found: dict[str, torch.Tensor]) -> None:
    """ValueError that names the first tensor which is missing, unknown or of another shape than config.json says."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{path} lacks the tensor {name}, which {CONFIG} asks for")
        if name not in wanted:
            raise ValueError(f"{path} has a tensor {name}, of which {CONFIG} knows nothing")
        if found[name].shape != wanted[name]:
            shapes = f"{tuple(found[name].shape)}; {CONFIG} asks for {tuple(wanted[name])}"
            raise ValueError(f"{path}: the tensor {name} has shape {shapes}")
        if not found[name].is_floating_point():
            raise ValueError(f"{path}: the tensor {name} is of {found[name].dtype}; weights are floating point numbers")
