"""A network as data: a graph that ``torch.export.save`` wrote, read without its loader and run operation by operation.

torch's own loader evaluates expressions and unpickles parts of such a file, so a file from elsewhere could run what it
likes. Here the JSON of the graph and the raw numbers of its weights are read, and nothing but the operations of the
table ``OPERATIONS`` is run. Tensors in, tensors out.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.models.foreign import RefusedWeights

LARGEST = 512 << 20  # bytes, unpacked
_TYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip  # ScalarType of torch's export schema
_PLAIN = ("as_int", "as_float", "as_bool", "as_ints", "as_floats", "as_bools", "as_string")
# Every operation that is run: numbers in, numbers out, by overload.
_BY_OVERLOAD = {
    "default": (
        "abs neg sqrt rsqrt exp log clamp clamp_min minimum maximum conv1d conv2d conv3d linear matmul bmm "
        "addmm batch_norm instance_norm group_norm layer_norm relu relu_ relu6 relu6_ leaky_relu leaky_relu_ "
        "prelu gelu silu silu_ hardswish hardswish_ hardsigmoid hardtanh hardtanh_ elu sigmoid tanh "
        "max_pool2d max_pool3d avg_pool2d avg_pool3d adaptive_avg_pool2d adaptive_avg_pool3d "
        "adaptive_max_pool2d mean amax amin cat stack view reshape permute unsqueeze expand chunk pad "
        "constant_pad_nd contiguous clone alias dropout feature_dropout pixel_shuffle pixel_unshuffle"
    ),
    "Tensor": "add add_ sub mul mul_ div slice split",
    "Scalar": "mul div",
    "Tensor_Scalar": "pow",
    "padding": "conv2d conv3d",
    "input": "conv_transpose2d conv_transpose3d",
    "int": "softmax log_softmax unflatten transpose select",
    "dim": "mean squeeze",
    "dim_IntList": "sum",
    "using_ints": "flatten",
    "dims": "squeeze",
    "vec": "upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_trilinear3d",
}
OPERATIONS = frozenset(
    f"torch.ops.aten.{name}.{overload}" for overload, names in _BY_OVERLOAD.items() for name in names.split()
)


class Graph:
    """One network, made for one picture at a time: (1, channels, …) → what it was exported to give."""

    def __init__(self, file: Path) -> None:
        """
        Raises:
            RefusedWeights: If the file cannot be read, or holds what is not run here; the sentence names it.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                self._read(archive, file)
        except (OSError, zipfile.BadZipFile) as error:
            raise RefusedWeights(f"{file} cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            if isinstance(error, RefusedWeights):
                raise
            raise RefusedWeights(f"{file} is no graph as torch.export.save writes it: {error!r}") from error

    def _read(self, archive: zipfile.ZipFile, file: Path) -> None:
        if sum(each.file_size for each in archive.infolist()) > LARGEST:
            raise RefusedWeights(f"{file} unpacks to more than {LARGEST >> 20} MiB")
        places = [name for name in archive.namelist() if name.endswith("models/model.json")]
        if len(places) != 1:
            raise RefusedWeights(f"{file} holds {len(places)} graphs (models/model.json), not one")
        root = places[0].removesuffix("models/model.json")
        module = json.loads(archive.read(f"{root}models/model.json"))["graph_module"]
        self._nodes = [_checked(node, file) for node in module["graph"]["nodes"]]
        config = json.loads(archive.read(f"{root}data/weights/model_weights_config.json"))["config"]
        self._held: dict[str, Tensor] = {}
        self._input = ""
        for spec in module["signature"]["input_specs"]:
            ((kind, what),) = spec.items()
            if kind == "user_input" and not self._input:
                self._input = what["arg"]["as_tensor"]["name"]
            elif kind in ("parameter", "buffer"):
                name = what[f"{kind}_name"]
                self._held[what["arg"]["name"]] = _tensor(archive, root, name, config.get(name), file)
            else:
                raise RefusedWeights(f"{file}: an input of the kind {kind} is not run here; one picture goes in")
        (self._output,) = [each["as_tensor"]["name"] for each in module["graph"]["outputs"]]

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        values = {**self._held, self._input: x}
        for target, arguments, outputs in self._nodes:
            operation: Any = torch.ops.aten
            for part in target.removeprefix("torch.ops.aten.").split("."):
                operation = getattr(operation, part)
            given = [_value(argument, values) for _, is_keyword, argument in arguments if not is_keyword]
            named = {name: _value(argument, values) for name, is_keyword, argument in arguments if is_keyword}
            result = operation(*given, **named)
            results = result if isinstance(result, tuple | list) else [result]
            values.update(zip(outputs, results, strict=False))
        return values[self._output]


Argument = tuple[str, bool, dict[str, Any]]


def _checked(node: dict[str, Any], file: Path) -> tuple[str, list[Argument], list[str]]:
    """Operation, arguments and names of the results, if all are such as are run here."""
    target = node["target"]
    if target not in OPERATIONS:
        raise RefusedWeights(f"{file}: the operation {target} is not run here")
    arguments = []
    for each in node["inputs"]:
        ((kind, _),) = each["arg"].items()
        if kind not in (*_PLAIN, "as_none", "as_tensor", "as_tensors"):
            why = "sizes that vary: export it for one picture" if "sym" in kind else f"an argument {kind}"
            raise RefusedWeights(f"{file}: {target} has {why}, which is not run here")
        arguments.append((each["name"], each.get("kind") == 2, each["arg"]))
    outputs: list[str] = []
    for each in node["outputs"]:
        ((kind, held),) = each.items()
        if kind not in ("as_tensor", "as_tensors"):
            raise RefusedWeights(f"{file}: {target} gives {kind}, which is not run here")
        outputs += [one["name"] for one in (held if kind == "as_tensors" else [held])]
    return target, arguments, outputs


def _value(argument: dict[str, Any], values: dict[str, Tensor]) -> Any:
    ((kind, held),) = argument.items()
    if kind == "as_tensor":
        return values[held["name"]]
    if kind == "as_tensors":
        return [values[each["name"]] for each in held]
    return None if kind == "as_none" else held


def _tensor(archive: zipfile.ZipFile, root: str, name: str, said: dict[str, Any] | None, file: Path) -> Tensor:
    """Raw numbers, whole and in their order; a pickle is refused."""
    if said is None or said["use_pickle"]:
        raise RefusedWeights(f"{file}: {name} is {'pickled' if said else 'missing'}, and is not read")
    meta = said["tensor_meta"]
    shape, strides = ([each["as_int"] for each in meta[key]] for key in ("sizes", "strides"))
    kind = _TYPES.get(meta["dtype"])
    plain = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    if kind is None or meta["storage_offset"]["as_int"] or any(
        stride != want for stride, want, size in zip(strides, plain, shape, strict=True) if size > 1
    ):  # fmt: skip
        raise RefusedWeights(f"{file}: {name} is not stored as plain numbers in their order")
    content = bytearray(archive.read(f"{root}data/weights/{said['path_name']}"))
    if not content:
        return torch.zeros(shape, dtype=kind)
    found = torch.frombuffer(content, dtype=kind)[: math.prod(shape)].reshape(shape)
    return found.float() if found.is_floating_point() else found
