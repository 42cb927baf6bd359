"""From an ONNX model in float32 to one in int8.

Products with constant weights are quantised per column and their inputs as they come, so nothing
is calibrated. Tables of embeddings are quantised per row: the rows of a text are scaled back when
they are looked up, which costs nothing beside a pass and keeps the table, most of a small model,
at a quarter of its size.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_WEIGHTS = "weights"
_FEWEST_ROWS = 256


def quantise(exact: Path, path: Path) -> None:
    """Write the model at ``exact`` in int8 to ``path``; its weights go to a file beside it.

    onnxruntime maps that file into memory, so a start does not read what it does not use, and
    processes share what none of them rewrites. Raises whatever the parts raise.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _quiet():
        between = Path(folder) / "model.onnx"
        quantize_dynamic(
            exact,
            between,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            use_external_data_format=True,
        )
        model = onnx.load(str(between))
    _quantise_tables(model.graph)
    onnx.save(model, str(path), save_as_external_data=True, location=_WEIGHTS)


def _quantise_tables(graph: Any) -> None:
    """Replace each look-up in a large float table by one in int8 rows and one of their scales."""
    tables = {
        t.name: t for t in graph.initializer if len(t.dims) == 2 and t.dims[0] >= _FEWEST_ROWS
    }
    lookups = [n for n in graph.node if n.op_type == "Gather" and n.input[0] in tables]
    for node in lookups:
        _quantise_lookup(graph, node, tables[node.input[0]])
    used = {name for node in graph.node for name in node.input}
    unused = [t for t in graph.initializer if t.name not in used]
    for tensor in unused:
        graph.initializer.remove(tensor)


def _quantise_lookup(graph: Any, node: Any, table: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    values = numpy_helper.to_array(table)
    if values.dtype != np.float32 or any(a.name == "axis" and a.i for a in node.attribute):
        return
    name, ids, output = node.output[0], node.input[1], node.output[0]
    scales = np.abs(values).max(axis=1, keepdims=True) / 127
    scales[scales == 0] = 1.0
    rows = np.rint(values / scales).astype(np.int8)
    graph.initializer.append(numpy_helper.from_array(rows, f"{name}_rows"))
    graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"))
    new = [
        helper.make_node("Gather", [f"{name}_rows", ids], [f"{name}_int8"], axis=0),
        helper.make_node("Gather", [f"{name}_scales", ids], [f"{name}_scale"], axis=0),
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [output]),
    ]
    place = next(i for i, other in enumerate(graph.node) if other is node or other == node)
    graph.node.remove(node)
    for offset, made in enumerate(new):
        graph.node.insert(place + offset, made)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what onnxruntime logs of each tensor to the root, as if it were the program.

    Where the root has no handler, its first record would also give it one that stays.
    """

    def other(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root, handler = logging.getLogger(), logging.NullHandler()
    root.addFilter(other)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.removeFilter(other)
