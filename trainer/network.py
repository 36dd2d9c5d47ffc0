"""The network of the `nlu` trunk, and how it becomes an ONNX file with 8-bit weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel


class Shape(BaseModel):
    """Sizes of the network. `reach` is how far, in words, relative positions are told apart."""

    embedding: int = 128
    width: int = 192
    inner: int = 768
    layers: int = 2
    heads: int = 4
    reach: int = 12
    dropout: float = 0.2


def build(shape: Shape, size: int) -> Any:
    """The trunk as a torch module over a table of `size` rows."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
            self.qkv = nn.Linear(shape.width, 3 * shape.width)
            self.out = nn.Linear(shape.width, shape.width)
            self.bias = nn.Parameter(torch.zeros(shape.heads, 2 * shape.reach + 1))
            self.up = nn.Linear(shape.width, shape.inner)
            self.down = nn.Linear(shape.inner, shape.width)
            self.drop = nn.Dropout(shape.dropout)

        def forward(self, x: Any, blocked: Any) -> Any:
            rows, length, width = x.shape
            qkv = self.qkv(self.before(x)).view(rows, length, 3, shape.heads, -1)
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            place = torch.arange(length, device=x.device)
            distance = (place[None, :] - place[:, None]).clamp(-shape.reach, shape.reach)
            scores = query @ key.transpose(-1, -2) * (width // shape.heads) ** -0.5
            near = torch.index_select(self.bias, 1, (distance + shape.reach).flatten())
            scores = scores + near.view(shape.heads, length, length) + blocked
            mixed = self.drop(scores.softmax(-1)) @ value
            x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(rows, length, width)))
            inner = nn.functional.gelu(self.up(self.after(x)), approximate="tanh")
            return x + self.drop(self.down(inner))

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.EmbeddingBag(size, shape.embedding, mode="sum", padding_idx=0)
            nn.init.normal_(self.table.weight, std=0.1)
            self.shift = nn.Linear(3 * shape.embedding, shape.width)
            self.layers = nn.ModuleList(Layer() for _ in range(shape.layers))
            self.last = nn.LayerNorm(shape.width)
            self.attend = nn.Linear(shape.width, 1)
            self.drop = nn.Dropout(shape.dropout)

        def embed(self, rows: Any, shares: Any) -> Any:
            """`rows` [words, features] with `shares` of the same shape -> [words, embedding]."""
            return self.table(rows, per_sample_weights=shares)

        def forward(self, x: Any, mask: Any) -> tuple[Any, Any]:
            """`x` [rows, words, embedding], `mask` bool -> states, and a unit vector a row."""
            keep = mask.unsqueeze(-1).to(x.dtype)
            x = self.drop(x) * keep
            edge = torch.zeros_like(x[:, :1])
            before = torch.cat([edge, x[:, :-1]], 1)
            after = torch.cat([x[:, 1:], edge], 1)
            x = nn.functional.gelu(
                self.shift(torch.cat([before, x, after], -1)), approximate="tanh"
            )
            blocked = (1 - keep.transpose(1, 2).unsqueeze(1)) * -1e4
            for layer in self.layers:
                x = layer(x, blocked)
            states = self.last(x)
            share = (self.attend(states) - (1 - keep) * 1e4).softmax(1)
            pooled = torch.cat([(states * share).sum(1), (states - (1 - keep) * 1e4).amax(1)], -1)
            pooled = nn.functional.layer_norm(pooled, pooled.shape[-1:])
            return states, pooled * pooled.shape[-1] ** -0.5

    return Trunk()


def export(trunk: Any, centre: Any, path: Path) -> None:
    """Writes `trunk.onnx`: rows int32 [texts, words, features] -> states, and unit vectors that are
    centred on `centre`."""
    import onnx
    import torch
    from torch import nn

    class Served(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, rows: Any) -> tuple[Any, Any]:
            known = (rows > 0).to(torch.float32)
            found = nn.functional.embedding(rows, self.trunk.table.weight)
            found = found * known.unsqueeze(-1)
            grams = known[:, :, 1:].sum(-1, keepdim=True).clamp(min=1)
            x = found[:, :, 0] + found[:, :, 1:].sum(2) / grams
            states, pooled = self.trunk(x, rows[:, :, 0] > 0)
            pooled = pooled - centre
            return states, pooled / pooled.square().sum(-1, keepdim=True).sqrt()

    rows = torch.ones(2, 3, 4, dtype=torch.int32)
    sizes = [torch.export.Dim(name, min=1, max=4096) for name in ("texts", "words", "features")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            Served().eval(),
            (rows,),
            dynamo=True,
            dynamic_shapes=(dict(enumerate(sizes)),),
            input_names=["rows"],
            output_names=["states", "pooled"],
            verbose=False,
        )
    assert program is not None
    onnx.save(stripped(quantised(program.model_proto)), path)


def stripped(model: Any) -> Any:
    """The ONNX model without what the exporter notes of the code it came from: paths and lines of
    the machine that made it."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    return model


def quantised(model: Any, least: int = 4096) -> Any:
    """The ONNX model with its matrices as int8 and a scale a row.

    They are widened again by Cast and Mul: onnxruntime folds those of constant matrices when it
    loads, and of the table only the rows that were looked up pass through them.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, nodes = model.graph, []
    looked_up = {node.input[0]: node for node in graph.node if node.op_type == "Gather"}
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < least:
            continue
        scale = np.maximum(np.abs(values).max(1, keepdims=True), 1e-12) / 127
        name = tensor.name
        whole, wide, scales = f"{name}_q", f"{name}_w", f"{name}_s"
        graph.initializer.remove(tensor)
        graph.initializer.append(
            numpy_helper.from_array(np.round(values / scale).astype(np.int8), whole)
        )
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), scales))
        if (gather := looked_up.get(name)) is None:
            nodes += [
                helper.make_node("Cast", [whole], [wide], to=TensorProto.FLOAT),
                helper.make_node("Mul", [wide, scales], [name]),
            ]
            continue
        at, index, out = list(graph.node).index(gather), gather.input[1], gather.output[0]
        graph.node.remove(gather)
        parts = [
            helper.make_node("Gather", [whole, index], [f"{out}_q"], axis=0),
            helper.make_node("Gather", [scales, index], [f"{out}_s"], axis=0),
            helper.make_node("Cast", [f"{out}_q"], [f"{out}_w"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_w", f"{out}_s"], [out]),
        ]
        for offset, node in enumerate(parts):
            graph.node.insert(at + offset, node)
    for node in reversed(nodes):
        graph.node.insert(0, node)
    del graph.value_info[:]
    return model
