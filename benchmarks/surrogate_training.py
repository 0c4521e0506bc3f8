"""Direct training: how fast are forward and backward through time, beside snnTorch and spyx?

Three cases, each row in a process of its own that imports only its own library; the rows of a case
run in turn, round by round, so that a machine that gets slower does so for all of them.

On a processor (on a graphics card see below):

- ``csnn``: 12C5-MP2-64C5-MP2-10 of leaky integrate-and-fire neurons on held images, T = 50, batch
  128, float32: gradients of all parameters, from the same weights. snnTorch loops over time, in
  both memory formats, and also with the constant first current computed once, which its users would
  have to write; the fastest that one gets without that counts for the goal. Ours with micro-batches
  of several sizes, on one device and on two virtual ones (and with an optimiser's update on top,
  which is part of our compiled step).
- ``linear``: one dense layer 512 -> N and leaky neurons, batch 16, 500 steps, N = 4,096 and 16,384
  (the set-up of Open Neuromorphic's comparison). snnTorch with its layer inside the loop over time
  and with the layer applied to all steps at once, spyx likewise; the loss is that of the spike
  counts for all.
- ``memory``: temporary memory of the compiled step for T = 300 frames of a 34x34 camera with two
  polarities at batch 128, with and without ``time_block``: the whole batch at once with XLA's own
  convolution, as on an accelerator, and micro-batches as on a CPU, these also timed.

    python benchmarks/surrogate_training.py [--cases csnn linear memory] [--rounds 5] [--quick]
        [--dataset digits|mnist] [--cores 2] > surrogate_training.jsonl

Where JAX computes on a graphics card, PyTorch does, too (a torch without one is left out), with
TF32 switched off; ours takes the whole batch at once, with and without ``time_block``.

Memory of a process ("peak") is the most that it held during a run, and "a run" of it what that is
above what it held before the run; a card's own memory is not in it. Without snnTorch or spyx only
our own numbers are taken; losses of all rows of a case are compared, which says whether they
compute the same.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LEAK, SLOPE = 0.5, 25.0  # of the CSNN
LEAK_LINEAR = 0.95
INPUTS = 512
SENSOR = (34, 34, 2)
EVENTS = 4096  # of a recording
RATES = (0.8, 0.2)  # spikes a step that the count loss wants of the right class and of the others
CASES = ("csnn", "linear", "memory")
PEERS = {"snnTorch": "snntorch", "spyx": "spyx"}


class Row(NamedTuple):
    """One row of a case, as it is handed to its process."""

    case: str
    library: str
    steps: int
    batch: int
    neurons: int = 0
    micro_batch: int | None = None
    devices: int = 1
    time_block: int | None = None
    once: bool = False  # what does not change, or all steps of the dense layer, computed at once
    channels_last: bool = False
    on_card: bool = False  # PyTorch computes on a graphics card

    @property
    def name(self) -> str:
        """Its name in the table."""
        words = [self.library]
        words += [f"N {self.neurons}"] * bool(self.neurons)
        words += [f"micro-batch {self.micro_batch}"] * bool(self.micro_batch)
        words += [f"{self.devices} devices"] * (self.devices > 1)
        words += [f"time block {self.time_block}"] * bool(self.time_block)
        words += ["channels last"] * self.channels_last
        words += ["first current once" if self.case == "csnn" else "layer first"] * self.once
        return ", ".join(words)


Run = Callable[[], float]


# What follows runs in the process of a row.


def shapes(row: Row) -> dict[str, tuple[int, ...]]:
    """Kernels by name, in our layout."""
    if row.case == "linear":
        return {"dense1": (INPUTS, row.neurons)}
    return {"conv1": (5, 5, 1, 12), "conv2": (5, 5, 12, 64), "readout": (1024, 10)}


def weights(row: Row) -> dict[str, dict[str, np.ndarray]]:
    """The same for every library: uniform between plus and minus 1 / sqrt(fan-in)."""
    rng, layers = np.random.default_rng(0), {}
    for name, shape in shapes(row).items():
        reach = 1 / np.sqrt(np.prod(shape[:-1]))
        kernel, bias = rng.uniform(-reach, reach, shape), rng.uniform(-reach, reach, shape[-1])
        layers[name] = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return layers


def examples(row: Row, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[B, 28, 28, 1]``, or inputs ``[B, T, 512]`` that spike now and then."""
    if row.case == "csnn":
        with np.load(folder / "images.npz") as file:
            return file["images"], file["labels"]
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(row.batch, row.steps, INPUTS)).astype(np.float32)
    return inputs, rng.integers(0, row.neurons, row.batch).astype(np.int32)


def ours(row: Row, folder: Path) -> Run:
    """One compiled update of ``jaxsnn.training.update``, at a learning rate of 0."""
    import jax

    update, state = our_update(row, our_task(row))
    params = {name: dict(tree) for name, tree in weights(row).items()}
    state = state.replace(params=jax.tree.map(jax.numpy.asarray, {**state.params, **params}))
    images, labels = map(jax.numpy.asarray, examples(row, folder))
    order, key = jax.numpy.arange(row.batch), jax.random.key(0)

    def run() -> float:
        nonlocal state
        state = update(state, order, images, labels, key, count=1, steps=None)
        return float(state.totals.loss) / row.batch

    return run


def our_network(row: Row) -> tuple[Any, Any]:
    """The convolutional network and its stimulus."""
    from jaxsnn import neurons
    from jaxsnn.arch import zoo
    from jaxsnn.inputs import stimulus
    from jaxsnn.training import spiking_net

    arch = zoo.csnn_nmnist if row.case == "memory" else zoo.csnn_static
    net = spiking_net(arch, neurons.leaky(LEAK, slope=SLOPE))
    if row.case == "memory":
        return net, stimulus.event_frames(SENSOR)
    return net, stimulus.held(row.steps)


def our_task(row: Row) -> Any:
    """What is trained."""
    from jaxsnn.network import Arithmetic
    from jaxsnn.training import through_time

    if row.case == "linear":
        return our_layer(row)
    net, shown = our_network(row)
    # The whole batch at once: the convolution that accelerators compute, for the memory it takes.
    in_loop = row.case == "csnn" or row.micro_batch is not None
    return through_time(
        net.clone(arithmetic=Arithmetic.IN_LOOP if in_loop else Arithmetic.PLAIN),
        shown,
        time_block=row.time_block,
    )


def our_layer(row: Row) -> Any:
    """A hidden layer and the loss of its spike counts; the readout that follows is not computed."""
    import jax.numpy as jnp

    from jaxsnn import neurons
    from jaxsnn.arch import parse
    from jaxsnn.network import net
    from jaxsnn.training import Task, losses_over_time, spiking_net

    size: dict[str, Any] = {"input_shape": (1, 1, INPUTS), "classes": 1}
    arch = parse(f"{row.neurons}b", norm=False, **size)
    body = spiking_net(arch, neurons.leaky(LEAK_LINEAR, slope=SLOPE))

    def loss(
        params: Any,
        rest: Any,
        inputs: Any,
        labels: Any,
        key: Any,
        train: bool,
        /,
        *,
        axis_name: Any,
        steps: Any = None,
        moment: Any = None,
    ) -> Any:
        del key, train, axis_name, steps, moment
        variables = {"params": params, **rest}
        x = jnp.moveaxis(inputs, 0, 1)[:, :, None, None]
        state = net.initial_state(body, variables, len(inputs))
        spikes = net.apply(body, variables, x, state).outs["dense1"]
        return losses_over_time.mse_count(spikes, labels), (jnp.sum(spikes, axis=0), rest)

    return Task(functools.partial(net.init_variables, body), loss)


def our_update(row: Row, task: Any) -> tuple[Any, Any]:
    """The compiled update and a state."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxsnn.training.gradients import Plan
    from jaxsnn.training.update import programs

    plan = Plan(row.batch, 1, 1, row.devices, row.micro_batch)
    initial, update = programs(task, optax.sgd(0.0), plan)
    return update, jax.tree.map(jnp.array, initial(jax.random.key(0)))


def our_frames(row: Row, folder: Path) -> tuple[Any, Run | None]:
    """The compiled step on frames of events; it runs only where the batch is computed in parts."""
    import jax

    del folder
    update, state = our_update(row, our_task(row))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, row.steps * np.prod(SENSOR), (row.batch, EVENTS), np.int32)
    images = {"codes": codes, "lengths": np.full(row.batch, row.steps, np.int32)}
    labels = rng.integers(0, 10, row.batch).astype(np.int32)
    constants = jax.device_put((np.arange(row.batch, dtype=np.int32), images, labels))
    key = jax.random.key(0)
    program = update.lower(state, *constants, key, count=1, steps=row.steps).compile()

    def run() -> float:
        nonlocal state
        state = program(state, *constants, key, count=1)
        return float(state.totals.loss) / row.batch

    return program, run if row.micro_batch else None


def snntorch_csnn(row: Row, folder: Path) -> Run:
    """SnnTorch's usual loop over time."""
    import snntorch
    import torch
    from snntorch import functional, surrogate

    arrays, pool = weights(row), torch.nn.functional.max_pool2d
    spike = surrogate.fast_sigmoid(SLOPE)
    conv1, conv2 = torch.nn.Conv2d(1, 12, 5), torch.nn.Conv2d(12, 64, 5)
    dense = torch.nn.Linear(1024, 10)
    cells = [snntorch.Leaky(LEAK, spike_grad=spike) for _ in range(3)]
    arrays["readout"]["kernel"] = channels_first(arrays["readout"]["kernel"], (4, 4, 64))
    model = torch.nn.ModuleList([conv1, conv2, dense])
    for layer, tree in zip(model, arrays.values(), strict=True):
        order = (3, 2, 0, 1) if tree["kernel"].ndim == 4 else (1, 0)
        layer.weight.data = torch.from_numpy(tree["kernel"].transpose(order).copy())
        layer.bias.data = torch.from_numpy(tree["bias"])
    images, labels = examples(row, folder)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    layout = torch.channels_last if row.channels_last else torch.contiguous_format
    model, x = model.to(memory_format=layout), x.contiguous(memory_format=layout)
    target, loss_of = torch.from_numpy(labels).long(), functional.ce_rate_loss()
    where = torch_device(row)
    model, x, target = model.to(where), x.to(where), target.to(where)
    cells = [cell.to(where) for cell in cells]

    def run() -> float:
        model.zero_grad()
        states, spikes = [cell.reset_mem() for cell in cells], []
        current = pool(conv1(x), 2) if row.once else None
        for _ in range(row.steps):
            drive = pool(conv1(x), 2) if current is None else current
            first, states[0] = cells[0](drive, states[0])
            second, states[1] = cells[1](pool(conv2(first), 2), states[1])
            third, states[2] = cells[2](dense(second.flatten(1)), states[2])
            spikes.append(third)
        loss = loss_of(torch.stack(spikes), target)
        loss.backward()
        return loss.item()

    return run


def channels_first(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A dense kernel whose inputs count channels first instead of last."""
    return kernel.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)


def snntorch_linear(row: Row, folder: Path) -> Run:
    """SnnTorch's layer inside the loop over time, or before it for all steps at once."""
    import snntorch
    import torch
    from snntorch import functional, surrogate

    arrays = weights(row)["dense1"]
    layer = torch.nn.Linear(INPUTS, row.neurons)
    layer.weight.data = torch.from_numpy(arrays["kernel"].T.copy())
    layer.bias.data = torch.from_numpy(arrays["bias"])
    cell = snntorch.Leaky(LEAK_LINEAR, spike_grad=surrogate.fast_sigmoid(SLOPE))
    inputs, labels = examples(row, folder)
    x, target = torch.from_numpy(inputs).transpose(0, 1).contiguous(), torch.from_numpy(labels)
    loss_of = functional.mse_count_loss(*RATES)
    where = torch_device(row)
    layer, cell, x, target = (one.to(where) for one in (layer, cell, x, target))

    def run() -> float:
        layer.zero_grad()
        state, spikes = cell.reset_mem(), []
        currents = layer(x) if row.once else (layer(step) for step in x)
        for current in currents:
            spike, state = cell(current, state)
            spikes.append(spike)
        loss = loss_of(torch.stack(spikes), target.long())
        loss.backward()
        return loss.item()

    return run


def spyx_linear(row: Row, folder: Path) -> Run:
    """Spyx's scan over time of layer and neuron, or of the neuron after the layer."""
    import jax
    import jax.numpy as jnp
    import spyx.axn
    import spyx.nn
    from flax import nnx

    arrays, rngs = weights(row)["dense1"], nnx.Rngs(0)
    layer = nnx.Linear(INPUTS, row.neurons, rngs=rngs)
    layer.kernel[...], layer.bias[...] = jnp.asarray(arrays["kernel"]), jnp.asarray(arrays["bias"])
    activation = spyx.axn.superspike(SLOPE)
    cell = spyx.nn.LIF((row.neurons,), LEAK_LINEAR, activation=activation, rngs=rngs)
    model = spyx.nn.Sequential(layer, cell)
    inputs, labels = map(jnp.asarray, examples(row, folder))
    x = jnp.moveaxis(inputs, 0, 1)
    wanted = jnp.where(labels[:, None] == jnp.arange(row.neurons), *RATES) * row.steps

    def loss(model: Any, x: Any) -> Any:
        if row.once:
            spikes, _ = spyx.nn.run(model.layers[1], model.layers[0](x))
        else:
            spikes, _ = spyx.nn.run(model, x)
        return jnp.mean((jnp.sum(spikes, axis=0) - wanted) ** 2) / row.steps

    both = nnx.jit(nnx.value_and_grad(loss))

    def run() -> float:
        value, gradients = jax.block_until_ready(both(model, x))
        del gradients
        return float(value)

    return run


def torch_device(row: Row) -> str:
    """Where PyTorch computes, in float32: on a graphics card it would round to TF32."""
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return "cuda" if row.on_card else "cpu"


def prepare(row: Row, folder: Path) -> tuple[Run | None, int | None]:
    """What a row runs, and the bytes of temporary memory of its program where XLA says them."""
    if row.case == "memory":
        program, run = our_frames(row, folder)
        return run, int(program.memory_analysis().temp_size_in_bytes)
    if row.library == "jaxsnn":
        return ours(row, folder), None
    if row.library == "spyx":
        return spyx_linear(row, folder), None
    import torch

    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return (snntorch_csnn if row.case == "csnn" else snntorch_linear)(row, folder), None


def held_bytes(what: str) -> int | None:
    """``VmRSS`` (now) or ``VmHWM`` (the most so far) of this process; None where not told."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(what)), None)
    return None if line is None else 1024 * int(line.split()[1])


def forget_peak() -> None:
    """Let ``VmHWM`` begin again at what is held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def work(row: Row, folder: Path) -> None:
    """A row's process: warm up, then a run for each line of stdin; JSON lines on stdout.

    A line names the clock: ``wall``, or ``processor`` for the seconds that processors spent.
    """
    run, temporary = prepare(row, folder)
    began = time.perf_counter()
    loss = None if run is None else run()
    first = time.perf_counter() - began
    before = held_bytes("VmRSS")
    forget_peak()
    print(json.dumps({"first": first, "loss": loss, "temporary": temporary}), flush=True)
    for line in sys.stdin:
        clock = time.process_time if line.strip() == "processor" else time.perf_counter
        began = clock()
        if run is not None:
            run()
        took = {"seconds": clock() - began, "peak": held_bytes("VmHWM")}
        print(json.dumps({**took, "before": before}), flush=True)


# What follows runs in the process that was started.


class Process:
    """A row's process, seen from outside."""

    def __init__(self, row: Row, folder: Path) -> None:
        # Whatever can be imported here can be there, also from a checkout.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # they share one card
        if row.devices > 1:
            flag = f"--xla_force_host_platform_device_count={row.devices}"
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}"
        handed = json.dumps([row._asdict(), str(folder)])
        self.row, self.last = row, dict[str, Any]()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--row", handed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.started = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise RuntimeError(f"the process of {self.row.name!r} ended with status {status}")
        return json.loads(line)

    def run(self, clock: str = "wall") -> float:
        """Seconds of one run."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{clock}\n")
        self.process.stdin.flush()
        self.last = self._read()
        return float(self.last["seconds"])

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()


def measure(report: Any, rows: list[Row], folder: Path, options: Any) -> dict[str, Any]:
    """Every row in turn; times by name."""
    import common

    processes: list[Process] = []
    try:
        for row in rows:
            processes.append(Process(row, folder))
        runs = {process.row.name: process.run for process in processes}
        seconds = [
            {name: run(options.clock) for name, run in runs.items()} for _ in range(options.rounds)
        ]
    finally:
        for process in processes:
            process.end()
    losses = {process.row.library: process.started["loss"] for process in processes}
    timings = {}
    for process in processes:
        row = process.row
        timing = common.Timing(process.started["first"], tuple(one[row.name] for one in seconds))
        shown = f"{1e3 * timing.median:,.0f} ms (best {1e3 * timing.best:,.0f})"
        memory = memory_of(process)
        if "peak" in memory:
            shown += f", peak {memory['peak'] >> 20} MiB, a run {memory['run'] >> 20}"
        fields = {**row._asdict(), **timing.record(row.batch), **memory}
        report.record(f"{row.case} {row.name}", shown, **fields, loss=process.started["loss"])
        timings[row.name] = timing
    mine = losses.pop("jaxsnn")
    for library, loss in losses.items():
        case = rows[0].case
        report.record(
            f"{case} loss of {library} less ours", f"{loss - mine:.1e}", value=loss - mine
        )
    return timings


def memory_of(process: Process) -> dict[str, int]:
    """The most that a process held, and what a run adds to what it held before."""
    peak, before = process.last.get("peak"), process.last.get("before")
    return {} if peak is None or before is None else {"peak": peak, "run": peak - before}


def on_cpu() -> bool:
    """Whether JAX computes on a processor: its rows are micro-batches, an accelerator's batches."""
    import jax

    return jax.default_backend() == "cpu"


def usable(peer: str) -> bool:
    """Whether a peer is installed and computes where JAX does."""
    if importlib.util.find_spec(PEERS[peer]) is None:
        return False
    if peer != "snnTorch" or on_cpu():
        return True
    import torch

    return torch.cuda.is_available()


def csnn(options: argparse.Namespace) -> list[Row]:
    """The rows of the convolutional network."""
    steps, batch = (5, 8) if options.quick else (50, 128)
    row = functools.partial(Row, "csnn", steps=steps, batch=batch)
    if on_cpu():
        parts, shared = ((4,), (2,)) if options.quick else ((1, 2, 4, 8, 16), (1, 4))
        rows = [row("jaxsnn", micro_batch=size) for size in parts]
        rows += [row("jaxsnn", micro_batch=size, devices=2) for size in shared]
    else:
        blocks = (None,) if options.quick else (None, 1, 10)
        rows = [row("jaxsnn", time_block=block) for block in blocks]
    if "snnTorch" in options.peers:
        peer = functools.partial(row, "snnTorch", on_card=not on_cpu())
        rows += [
            peer(),
            peer(channels_last=True),
            peer(once=True),
            peer(once=True, channels_last=True),
        ]
    return rows


def linear(options: argparse.Namespace, neurons: int) -> list[Row]:
    """The rows of the dense layer with so many neurons."""
    row = functools.partial(Row, "linear", steps=500, batch=16, neurons=neurons)
    if options.quick:
        row = functools.partial(Row, "linear", steps=10, batch=4, neurons=neurons)
    rows = [row("jaxsnn", micro_batch=size) for size in ((2,) if options.quick else (1, 4, None))]
    for peer in options.peers:
        rows += [row(peer, once=once, on_card=not on_cpu()) for once in (False, True)]
    return rows


def memory_rows(options: argparse.Namespace) -> list[Row]:
    """The rows of the frames of events."""
    steps, batch, micro = (12, 4, 2) if options.quick else (300, 128, 4)
    blocks = (None, 4) if options.quick else (None, 10, 20, 50)
    row = functools.partial(Row, "memory", "jaxsnn", steps=steps, batch=batch)
    rows = [row(time_block=block) for block in blocks]
    return rows + [row(time_block=block, micro_batch=micro) for block in blocks]


def memory(report: Any, rows: list[Row], folder: Path) -> None:
    """Temporary memory of every row; what a run of the micro-batches takes."""
    bytes_of: dict[Row, int] = {}
    for row in rows:
        process = Process(row, folder)
        seconds = process.run() if row.micro_batch else None
        process.end()
        bytes_of[row] = process.started["temporary"]
        shown = f"{bytes_of[row] / 2**20:,.0f} MiB"
        shown += "" if seconds is None else f", {seconds:.2f} s"
        fields = {**row._asdict(), "bytes": bytes_of[row], "seconds": seconds}
        report.record(f"memory {row.name}", shown, **fields)
    for micro in dict.fromkeys(row.micro_batch for row in rows):
        sizes = {row.time_block: size for row, size in bytes_of.items() if row.micro_batch == micro}
        least = min(size for block, size in sizes.items() if block)
        where = "whole batch" if micro is None else f"micro-batch {micro}"
        report.record(f"memory with / without time_block, {where}", f"{least / sizes[None]:.3f}")


def goals(report: Any, case: str, timings: dict[str, Any], limit: float) -> None:
    """Our best row beside each peer's best, by median of the rounds."""
    best = min((timing.median, name) for name, timing in timings.items() if "jaxsnn" in name)[1]
    for peer in PEERS:
        usual = [name for name in timings if peer in name and "first current once" not in name]
        if usual:
            other = min(usual, key=lambda name: timings[name].median)
            name = f"{case}: {other} over {best}"
            report.goal(name, timings[other].over(timings[best]), limit, at_least=True)
        helped = [name for name in timings if peer in name and "first current once" in name]
        if helped:
            other = min(helped, key=lambda name: timings[name].median)
            ratio = timings[other].over(timings[best])
            report.record(f"{case}: {other} over {best}", f"{ratio:.3g}", value=ratio)


def compare(
    report: Any, case: str, options: argparse.Namespace, folder: Path, limit: float
) -> dict[str, Any]:
    """All rows of ``csnn`` or ``linear`` beside each other; times by name."""
    if case == "csnn":
        rows = [row for row in csnn(options) if row.name in (options.only or row.name)]
        groups = [rows]
    else:
        groups = [linear(options, neurons) for neurons in options.neurons]
    all_timings: dict[str, Any] = {}
    for rows in groups:
        timings = measure(report, rows, folder, options)
        goals(report, case, timings, limit)
        all_timings |= timings
    return all_timings


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--neurons", nargs="+", type=int, default=(4096, 16384))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each row, after a warm-up")
    parser.add_argument("--quick", action="store_true", help="our own rows, tiny, one round")
    parser.add_argument("--dataset", default="", help="default: mnist where it is found, or digits")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--cores", type=int, default=0, help="use so many processor cores (0: all)")
    parser.add_argument("--only", nargs="+", default=None, help="of case csnn, rows of these names")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="the processor's seconds, not the clock's: on a busy machine, with --cores 1",
    )
    parser.add_argument("--row", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.clock = "processor" if options.processor_time else "wall"
    alone = options.quick or options.row  # a row's process imports its own library alone
    options.peers = [] if alone else [name for name in PEERS if usable(name)]
    if options.quick:
        options.rounds, options.neurons = 1, (8,)
    return options


def images(options: argparse.Namespace, folder: Path) -> str:
    """Put the images of a batch into the folder; returns the name of the data set."""
    import common

    options.dataset = options.dataset or ("mnist" if os.environ.get("JAXSNN_DATA") else "digits")
    dataset = common.images_of(options, 128)
    labels = dataset.train_labels
    np.savez(folder / "images.npz", images=dataset.train_images, labels=labels)
    return options.dataset


def versions(options: argparse.Namespace) -> dict[str, str]:
    """Versions of what ours is compared with."""
    names = ("torch", *(PEERS[peer] for peer in options.peers)) if options.peers else ()
    return {name: importlib.metadata.version(name) for name in names}


def main(argv: list[str] | None = None) -> None:
    """Measure the cases that were asked for."""
    options = arguments(argv)
    if options.row:
        row, folder = json.loads(options.row)
        work(Row(**row), Path(folder))
        return
    import common

    if options.cores:
        common.use_cores(options.cores)  # the processes of the rows inherit it
    missing = [name for name in PEERS if name not in options.peers]
    if missing and not options.quick:
        print(f"{', '.join(missing)}: not installed, no comparison (extra bench)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report = common.Report(
            "surrogate_training",
            dataset=images(options, folder),
            peers=versions(options),
            clock=options.clock,
            cores=options.cores or os.cpu_count(),
        )
        for case, limit in (("csnn", 1.3), ("linear", 1.0)):
            if case in options.cases:
                compare(report, case, options, folder, limit)
        if "memory" in options.cases:
            memory(report, memory_rows(options), folder)
        report.show()


if __name__ == "__main__":
    main()
