"""A model -> a folder that ONNX Runtime decodes from, in fp32 and in int8, without torch.

    config.json      the run's own: sizes, representation
    begin.onnx       z (B, Z) -> for each bar (N = B * U) and decoder d: d/base (N, 4H), d/h0, d/c0 (N, H) ...
    step-0.onnx      a step of decoder 0: base, token0 (N) ..., h0, c0 ... -> logits (N, V), next/h0, next/c0 ...
    *.int8.onnx      the same, weights in 8 bits by the output unit, activations rounded to 8 bits as they come

A trio has one step file a stream. The graphs are put together here from the tables of the player, so that they
hold the same arithmetic.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from musicvae.extras import missing
from musicvae.files import replacing
from musicvae.model.config import RunConfig, save_config
from musicvae.model.lstm import Dense
from musicvae.model.player import Player
from musicvae.model.table_decoder import TableDecoder

OPSET, IR_VERSION = 17, 9  # understood by ONNX Runtime 1.16 and later


class Graph:
    """An ONNX graph under construction: a call adds a node and gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def __call__(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        return self.several(op, *inputs, names=[name or f"{op}.{len(self.nodes)}"], **attributes)[0]

    def several(self, op: str, *inputs: str, names: list[str], **attributes: Any) -> list[str]:
        """A node with as many outputs as names."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def constant(self, value: np.ndarray | list[int], name: str) -> str:
        """The name of a constant: a weight in fp32, or a shape; a name given twice is the same constant."""
        from onnx import numpy_helper

        array = np.array(value, np.int64) if isinstance(value, list) else np.asarray(value, np.float32)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def input(self, name: str, *shape: int, integer: bool = False) -> str:
        """An input of N rows."""
        self.inputs.append(_value(name, shape, integer))
        return name

    def output(self, value: str, name: str, *shape: int) -> None:
        """An output of N rows."""
        self("Identity", value, name=name)
        self.outputs.append(_value(name, shape))

    def dense(self, x: str, weight: np.ndarray, bias: np.ndarray | str, name: str) -> str:
        """x (N, n) times weight (m, n) plus bias, an array (m) or what a node gave (N, m)."""
        product = self("MatMul", x, self.constant(weight.T, f"{name}.weight"))
        return self("Add", product, bias if isinstance(bias, str) else self.constant(bias, f"{name}.bias"))

    def layers(
        self, weights: list[np.ndarray], biases: list[np.ndarray | str], state: list[tuple[str, str]], name: str
    ) -> list[tuple[str, str]]:
        """One step of a stack of LSTM layers, laid out as in `TableDecoder`: (h, c) of each -> (h, c) of each."""
        found: list[tuple[str, str]] = []
        half = self.constant(np.array(0.5), "half")
        for n, (weight, bias, (h, c)) in enumerate(zip(weights, biases, state)):
            hidden, at = weight.shape[0] // 4, f"{len(self.nodes)}"
            heard = self("Concat", found[-1][0], h, axis=1) if found else h
            gates = self("Tanh", self.dense(heard, weight, bias, f"{name}.{n}"))
            parts = self.constant([hidden] * 4, f"parts.{hidden}")
            *ifo, g = self.several("Split", gates, parts, names=[f"{gate}.{at}" for gate in "ifog"], axis=1)
            i, f, o = (self("Add", self("Mul", gate, half), half) for gate in ifo)
            c = self("Add", self("Mul", c, f), self("Mul", i, g))
            found.append((self("Mul", self("Tanh", c), o), c))
        return found

    def start(self, module: Dense, vector: str, layers: int, name: str) -> list[tuple[str, str]]:
        """vector (N, n) -> the initial (h, c) of every layer, in the order of `Start`: c before h."""
        states = self("Tanh", self.dense(vector, module.weight, module.bias, name))
        sizes = self.constant([len(module.bias) // (2 * layers)] * (2 * layers), f"{name}.sizes")
        parts = self.several("Split", states, sizes, names=[f"{name}.{n}" for n in range(2 * layers)], axis=1)
        return list(zip(parts[1::2], parts[::2]))

    def save(self, path: Path) -> None:
        import onnx
        from onnx import helper

        graph = helper.make_graph(self.nodes, path.stem, self.inputs, self.outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.save(model, path)


def _value(name: str, shape: tuple[int, ...], integer: bool = False) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.INT64 if integer else TensorProto.FLOAT, ["N", *shape])


def begin_graph(player: Player) -> Graph:
    """Everything that depends on z alone: the conductor, and what each bar and decoder begin with."""
    graph, config = Graph(), player.config
    told = graph.input("z", config.latent_size)
    if config.bars > 1:
        told = conduct(graph, player, told)  # (B*U, C)
    for d, decoder in enumerate(player.decoders):
        base = graph.dense(told, decoder.condition, decoder.biases[0][:, 0], f"base.{d}")
        graph.output(base, f"{d}/base", len(decoder.condition))
        for n, pair in enumerate(graph.start(decoder.start, told, decoder.layers, f"start.{d}")):
            for part, value in zip("hc", pair):
                graph.output(value, f"{d}/{part}{n}", config.decoder_units)
    return graph


def conduct(graph: Graph, player: Player, z: str) -> str:
    """z (B, Z) -> what each bar is told (B*U, C)."""
    config, hidden = player.config, player.config.conductor_units
    silence = graph("MatMul", z, graph.constant(np.zeros((config.latent_size, 1)), "zeros"))  # (B, 1)
    first, second, bars = (graph.constant(v, n) for v, n in (([0], "0"), ([1], "1"), ([config.bars, 1, 1], "bars")))
    heard = graph("Expand", graph("Unsqueeze", silence, first), bars)  # (U, B, 1)
    start = Dense(player.weights, "conductor_start.dense", player.dtype)
    for n, (h, c) in enumerate(graph.start(start, z, config.conductor_layers, "conductor.start")):
        w, r, bias_w, bias_r = (
            iofg(player.weights[f"conductor.{name}_l{n}"]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        weights = {"w": w, "r": r, "b": np.concatenate([bias_w, bias_r])}
        names = [graph.constant(value[None], f"conductor.{n}.{key}") for key, value in weights.items()]
        states = [graph("Unsqueeze", state, first) for state in (h, c)]
        heard = graph("Squeeze", graph("LSTM", heard, *names, "", *states, hidden_size=hidden), second)  # (U, B, H)
    rows = graph("Reshape", graph("Transpose", heard, perm=[1, 0, 2]), graph.constant([-1, hidden], "rows"))
    condition = Dense(player.weights, "to_condition", player.dtype)
    told = graph.dense(rows, condition.weight, condition.bias, "condition")
    if not config.linear:
        return told
    linear = Dense(player.weights, "linear_condition", player.dtype)
    beside = graph.dense(z, linear.weight, linear.bias, "linear")  # (B, U*C)
    return graph("Add", told, graph("Reshape", beside, graph.constant([-1, config.condition_size], "bars.rows")))


def iofg(weight: np.ndarray) -> np.ndarray:
    """(4H, ...) of nn.LSTM, gates i, f, g, o -> i, o, f, g, the order of ONNX."""
    i, f, g, o = np.split(weight, 4)
    return np.concatenate([i, o, f, g])


def step_graph(decoder: TableDecoder) -> Graph:
    """One step of a decoder: base, token0 and so on, h0, c0 and so on -> logits, next/h0, next/c0 and so on."""
    graph, hidden = Graph(), len(decoder.weights[0]) // 4
    gates = graph.input("base", 4 * hidden)
    for k, rows in enumerate(decoder.tables):  # behind the tokens a row for silence, which adds nothing
        table = graph.constant(np.pad(rows, ((0, 1), (0, 0))), f"table.{k}")
        gates = graph("Add", gates, graph("Gather", table, graph.input(f"token{k}", integer=True)))
    state = [(graph.input(f"h{n}", hidden), graph.input(f"c{n}", hidden)) for n in range(decoder.layers)]
    biases: list[np.ndarray | str] = [gates, *(bias[:, 0] for bias in decoder.biases[1:])]
    state = graph.layers(decoder.weights, biases, state, "layer")
    logits = graph.dense(state[-1][0], decoder.to_logits.weight, decoder.to_logits.bias, "logits")
    graph.output(logits, "logits", sum(decoder.vocab))
    for n, pair in enumerate(state):
        for part, value in zip("hc", pair):
            graph.output(value, f"next/{part}{n}", hidden)
    return graph


def export_onnx(player: Player, config: RunConfig, folder: Path) -> None:
    """Writes the folder described above. Raises ValueError where the packages for it are not installed."""
    quantise = _quantiser()
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"begin": begin_graph(player)}
    graphs |= {f"step-{d}": step_graph(decoder) for d, decoder in enumerate(player.decoders)}
    for name, graph in graphs.items():
        with replacing(folder / f"{name}.onnx") as temporary:
            graph.save(temporary)
        with replacing(folder / f"{name}.int8.onnx") as temporary:
            quantise(folder / f"{name}.onnx", temporary)
    save_config(folder, config)


def _quantiser() -> Any:
    try:
        import onnx  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise ValueError(missing("onnx")) from None

    def quantise(source: Path, target: Path) -> None:
        """7 of the 8 bits, as sums of two products of 8 bits overflow on CPUs that keep them in 16 (AVX2)."""
        logging.disable(logging.WARNING)  # it recommends to merge nodes first, of which there are none to be merged
        try:
            quantize_dynamic(
                source, target, ["MatMul"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
            )
        finally:
            logging.disable(logging.NOTSET)

    return quantise
