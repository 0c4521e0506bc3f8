"""A module of torch as a graph, by ``torch.fx`` and one run on a few images (extra ``torch``)."""

# Torch is not installed where types are checked.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import PurePath

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exchange.graph import Graph, Start, Step, inexpressible
from jaxsnn.exchange.torch_calls import PARAMETERS, Call, operation_of
from jaxsnn.exchange.torch_ready import line_of, ready
from jaxsnn.types import Untyped

Array = np.ndarray

EXAMPLES = 3  # images of the run: no other size is likely to be the same


def trace(module: Untyped, images: Array) -> Graph:
    """Write down what a module does to images.

    Args:
        module: an ``nn.Module``; it is copied, and stays as it is.
        images: ``[B, C, H, W]``, of the size and the scale that it is made for.

    Raises:
        UserError: ``torch.fx`` cannot trace it, or a step is none of
            :data:`jaxsnn.exchange.torch_calls.OPERATIONS`, with its place.
    """
    import torch  # pyright: ignore[reportMissingImports]

    traced = _traced(ready(module))
    values: dict[str, Array] = {}
    settings: dict[str, dict[str, object]] = {}

    def run_node(interpreter: Untyped, node: Untyped) -> Untyped:
        arguments, named = interpreter.fetch_args_kwargs_from_env(node)
        settings[node.name] = _settings(_kind(node, traced), arguments, named)
        result = torch.fx.Interpreter.run_node(interpreter, node)
        if isinstance(result, torch.Tensor):
            values[node.name] = result.detach().float().numpy().copy()  # some work in place
        return result

    recorder: Untyped = type("Recorder", (torch.fx.Interpreter,), {"run_node": run_node})
    with torch.no_grad():
        try:
            recorder(traced).run(torch.tensor(images))
        except Exception as error:  # whatever the module raises for images of this shape
            raise UserError(
                f"{type(module).__name__} fails on images {images.shape}: {line_of(error)}; is "
                "input_shape=(height, width, channels) right?"
            ) from error
    return _graph(traced, values, settings)


def _traced(module: Untyped) -> Untyped:
    """A module whose steps are written down."""
    import torch  # pyright: ignore[reportMissingImports]

    tracer = torch.fx.Tracer()
    tracer.record_stack_traces = True
    try:
        graph = tracer.trace(module)
    except Exception as error:  # whatever the module's own code raises when values are missing
        raise UserError(
            f"{type(module).__name__}: torch.fx cannot follow it ({line_of(error)}{_where(error)})"
            "; give its state_dict() and the architecture as arch= instead"
        ) from error
    return torch.fx.GraphModule(tracer.root, graph)


def _where(error: Exception) -> str:
    """The line of the module's code that raised an error; "" if it is torch's."""
    frames = traceback.extract_tb(error.__traceback__)
    return _written([(each.filename, each.lineno) for each in frames])


def _written(lines: list[tuple[str, Untyped]]) -> str:
    """The last line of code that is neither torch's nor ours; "" without one."""
    theirs = [
        f", line {line} of {path.name}"
        for path, line in ((PurePath(file), line) for file, line in lines)
        if "torch" not in path.parts and path.parent != PurePath(__file__).parent
    ]
    return theirs[-1] if theirs else ""


def _graph(
    traced: Untyped, values: Mapping[str, Array], settings: Mapping[str, Mapping[str, object]]
) -> Graph:
    """The steps that the output needs."""
    *nodes, last = traced.graph.nodes
    (output,) = last.all_input_nodes if len(last.all_input_nodes) == 1 else (None,)
    if output is None or last.args[0] is not output:
        raise UserError("the network gives several outputs; one tensor of logits is wanted")
    needed = _needed(output)
    steps: list[Step] = []
    for node in nodes:
        if node not in needed:
            _check_unused(node, traced)
        elif node.name in values:
            inputs = [each.name for each in node.all_input_nodes if each.name in values]
            steps.append(_step(node, traced, inputs, values, settings[node.name]))
    return Graph(tuple(steps), output.name, values)


def _needed(output: Untyped) -> set[Untyped]:
    waiting, needed = [output], {output}
    while waiting:
        new = set(waiting.pop().all_input_nodes) - needed
        needed |= new
        waiting += new
    return needed


def _check_unused(node: Untyped, traced: Untyped) -> None:
    """Refuse a step whose result nobody takes, but that changes its input."""
    module = traced.get_submodule(node.target) if node.op == "call_module" else None
    inplace = node.kwargs.get("inplace") or getattr(module, "inplace", False)
    if inplace or _kind(node, traced).endswith("_"):
        raise inexpressible(
            _place(node, traced), "changes a tensor in place, and its result is not used; use it"
        )


def _step(
    node: Untyped,
    traced: Untyped,
    inputs: list[str],
    values: Mapping[str, Array],
    settings: Mapping[str, object],
) -> Step:
    place, shape = _place(node, traced), values[node.name].shape
    module = traced.get_submodule(node.target) if node.op == "call_module" else None
    shapes = tuple(values[name].shape for name in inputs)
    if node.op == "placeholder":
        return Step(node.name, place, Start(), (), shape[1:])
    call = Call(place, _kind(node, traced), str(node.target), module, settings, shapes, shape)
    return Step(node.name, place, operation_of(call), tuple(inputs), shape[1:])


def _kind(node: Untyped, traced: Untyped) -> str:
    """Name of a module's class, of a function or of a method; "" if it is not torch's."""
    if node.op == "call_module":
        kind = type(traced.get_submodule(node.target))
        return kind.__name__ if kind.__module__.startswith("torch.nn") else ""
    if node.op == "call_function":
        origin = getattr(node.target, "__module__", None) or "torch"
        torchs = origin.split(".")[0] in ("torch", "_operator", "builtins")
        return str(getattr(node.target, "__name__", "")) if torchs else ""
    return str(node.target) if node.op == "call_method" else node.op


def _settings(
    kind: str, arguments: tuple[Untyped, ...], named: Mapping[str, Untyped]
) -> dict[str, object]:
    """Arguments behind the first tensor, by name."""
    names = PARAMETERS.get(kind, ())
    return {**dict(zip(names, arguments[1:], strict=False)), **named}


def _place(node: Untyped, traced: Untyped) -> str:
    """Where a step stands: the module's path and class, or the line of the code."""
    if node.op == "placeholder":
        return "the images"
    if node.op == "call_module":
        return f"{node.target} ({type(traced.get_submodule(node.target)).__name__})"
    lines = re.findall(r'File "([^"]*)", line (\d+)', node.stack_trace or "")
    return str(node.name) + _written(lines)
