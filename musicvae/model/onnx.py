"""A model -> a folder that ONNX Runtime decodes from, in fp32 and in int8, without torch.

    config.json      the run's own: sizes, representation
    begin.onnx       z (B, Z) -> for each bar (N = B * U) and decoder d: d/base (N, 4H), d/h0, d/c0 (N, H) ...
    step-0.onnx      a step of decoder 0: base, token0 (N) ..., h0, c0 ... -> logits (N, V), next/h0, next/c0 ...
    *.int8.onnx      the same, weights in 8 bits by the output unit, activations rounded to 8 bits as they come

A trio has one step file a stream. The graphs are put together here from the tables of the fast decoder, so that they
hold the same arithmetic; sampling is in `onnx_decoder.py`.
"""

import logging
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from musicvae.files import replacing
from musicvae.model.checkpoint import CONFIG, RunConfig
from musicvae.model.sampling import Tables, prepare
from musicvae.model.vae import MusicVAE, Start

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

    def constant(self, value: Tensor | list[int], name: str) -> str:
        """The name of a constant: a weight in fp32, or a shape; a name given twice is the same constant."""
        from onnx import numpy_helper

        array = np.array(value, np.int64) if isinstance(value, list) else value.detach().cpu().float().numpy()
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

    def dense(self, x: str, weight: Tensor, bias: Tensor | str, name: str) -> str:
        """x (N, n) times weight (n, m) plus bias, a tensor (m) or what a node gave (N, m)."""
        product = self("MatMul", x, self.constant(weight, f"{name}.weight"))
        return self("Add", product, bias if isinstance(bias, str) else self.constant(bias, f"{name}.bias"))

    def layers(
        self, weights: list[Tensor], biases: list[Tensor | str], state: list[tuple[str, str]], name: str
    ) -> list[tuple[str, str]]:
        """One step of a stack of LSTM layers, laid out as in `Tables`: (h, c) of each -> (h, c) of each."""
        found: list[tuple[str, str]] = []
        for n, (weight, bias, (h, c)) in enumerate(zip(weights, biases, state)):
            hidden, at = weight.shape[1] // 4, f"{len(self.nodes)}"
            heard = self("Concat", found[-1][0], h, axis=1) if found else h
            gates = self.dense(heard, weight, bias, f"{name}.{n}")
            parts = self.constant([3 * hidden, hidden], f"parts.{hidden}")
            thirds = self.constant([hidden] * 3, f"thirds.{hidden}")
            sigmoids, candidate = self.several("Split", gates, parts, names=[f"ifo.{at}", f"g.{at}"], axis=1)
            names = [f"{gate}.{at}" for gate in "ifo"]
            i, f, o = self.several("Split", self("Sigmoid", sigmoids), thirds, names=names, axis=1)
            c = self("Add", self("Mul", c, f), self("Mul", i, self("Tanh", candidate)))
            found.append((self("Mul", self("Tanh", c), o), c))
        return found

    def start(self, module: Start, vector: str, name: str) -> list[tuple[str, str]]:
        """vector (N, n) -> the initial (h, c) of every layer, in the order of `Start`: c before h."""
        dense: nn.Linear = module.dense
        states = self("Tanh", self.dense(vector, dense.weight.t(), dense.bias, name))
        count = 2 * module.layers
        sizes = self.constant([module.hidden] * count, f"{name}.sizes")
        parts = self.several("Split", states, sizes, names=[f"{name}.{n}" for n in range(count)], axis=1)
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


def begin_graph(model: MusicVAE, tables: list[Tables]) -> Graph:
    """Everything that depends on z alone: the conductor, and what each bar and decoder begin with."""
    graph, config = Graph(), model.config
    told = graph.input("z", config.latent_size)
    if config.bars > 1:
        told = conduct(graph, model, told)  # (B*U, C)
    for d, table in enumerate(tables):
        base = graph.dense(told, table.condition, table.biases[0], f"base.{d}")
        graph.output(base, f"{d}/base", table.condition.shape[1])
        for n, pair in enumerate(graph.start(table.start, told, f"start.{d}")):
            for part, value in zip("hc", pair):
                graph.output(value, f"{d}/{part}{n}", table.start.hidden)
    return graph


def conduct(graph: Graph, model: MusicVAE, z: str) -> str:
    """z (B, Z) -> what each bar is told (B*U, C)."""
    config, hidden = model.config, model.config.conductor_units
    silence = graph("MatMul", z, graph.constant(torch.zeros(config.latent_size, 1), "zeros"))  # (B, 1)
    first, second, bars = (graph.constant(v, n) for v, n in (([0], "0"), ([1], "1"), ([config.bars, 1, 1], "bars")))
    heard = graph("Expand", graph("Unsqueeze", silence, first), bars)  # (U, B, 1)
    for n, (h, c) in enumerate(graph.start(model.conductor_start, z, "conductor.start")):
        w, r, bias_w, bias_r = (
            iofg(getattr(model.conductor, f"{name}_l{n}")) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        weights = {"w": w, "r": r, "b": torch.cat([bias_w, bias_r])}
        names = [graph.constant(value.unsqueeze(0), f"conductor.{n}.{key}") for key, value in weights.items()]
        states = [graph("Unsqueeze", state, first) for state in (h, c)]
        heard = graph("Squeeze", graph("LSTM", heard, *names, "", *states, hidden_size=hidden), second)  # (U, B, H)
    rows = graph("Reshape", graph("Transpose", heard, perm=[1, 0, 2]), graph.constant([-1, hidden], "rows"))
    told = graph.dense(rows, model.to_condition.weight.t(), model.to_condition.bias, "condition")
    if not config.linear:
        return told
    beside = graph.dense(z, model.linear_condition.weight.t(), model.linear_condition.bias, "linear")  # (B, U*C)
    return graph("Add", told, graph("Reshape", beside, graph.constant([-1, config.condition_size], "bars.rows")))


def iofg(weight: Tensor) -> Tensor:
    """(4H, ...) of nn.LSTM, gates i, f, g, o -> i, o, f, g, the order of ONNX."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, o, f, g])


def step_graph(table: Tables) -> Graph:
    """One step of a decoder: base, token0 and so on, h0, c0 and so on -> logits, next/h0, next/c0 and so on."""
    graph, hidden = Graph(), table.start.hidden
    gates = graph.input("base", 4 * hidden)
    for k, rows in enumerate(table.tokens):
        row = graph("Gather", graph.constant(rows, f"table.{k}"), graph.input(f"token{k}", integer=True))
        gates = graph("Add", gates, row)
    state = [(graph.input(f"h{n}", hidden), graph.input(f"c{n}", hidden)) for n in range(len(table.weights))]
    state = graph.layers(table.weights, [gates, *table.biases[1:]], state, "layer")
    logits = graph.dense(state[-1][0], table.to_logits, table.logits_bias, "logits")
    graph.output(logits, "logits", sum(table.vocab_sizes))
    for n, pair in enumerate(state):
        for part, value in zip("hc", pair):
            graph.output(value, f"next/{part}{n}", hidden)
    return graph


@torch.no_grad()
def export_onnx(model: MusicVAE, config: RunConfig, folder: Path) -> None:
    """Writes the folder described above. Raises ValueError where the packages for it are not installed."""
    quantise = _quantiser()
    folder.mkdir(parents=True, exist_ok=True)
    tables = [prepare(decoder) for decoder in model.decoders]  # type: ignore[arg-type]
    graphs = {"begin": begin_graph(model, tables)} | {f"step-{d}": step_graph(table) for d, table in enumerate(tables)}
    for name, graph in graphs.items():
        with replacing(folder / f"{name}.onnx") as temporary:
            graph.save(temporary)
        with replacing(folder / f"{name}.int8.onnx") as temporary:
            quantise(folder / f"{name}.onnx", temporary)
    with replacing(folder / CONFIG) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")


def _quantiser() -> Any:
    try:
        import onnx  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise ValueError("ONNX is not installed. Install it with: pip install onnx onnxruntime") from None

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
