"""Direct training of a spiking network on static MNIST, or on the events of N-MNIST.

Eshraghian et al., Proc. IEEE 111, 2023: ``12C5-MP2-64C5-MP2-10`` of leaky integrate-and-fire
neurons, trained by backpropagation through time with a surrogate gradient. Stages: train, evaluate,
simulate (count spikes and operations, keep what the pictures show), plot.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich.console import Console

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking, directly_trained
from jaxsnn.exchange import saved
from jaxsnn.inputs.stimulus import Shown
from jaxsnn.io import files, metrics
from jaxsnn.io.arrays import flatten, load_arrays, load_params, unflatten
from jaxsnn.io.terminal import show
from jaxsnn.network import net as net_module
from jaxsnn.neurons.leaky import Emit
from jaxsnn.report import results, scan
from jaxsnn.report.figures import accuracy, training
from jaxsnn.report.figures.draw import Figures, draw_all
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems import result_fields, timing
from jaxsnn.systems.run_folder import Run, train_run, weights_at
from jaxsnn.systems.setting import Paper
from jaxsnn.systems.settings.surrogate_csnn import NmnistCsnn
from jaxsnn.systems.shared_batches import batch_within, devices, own_devices
from jaxsnn.systems.stages import COMMON, Stage, System
from jaxsnn.systems.surrogate_csnn import data as surrogate_csnn_data
from jaxsnn.systems.surrogate_csnn import pictures as surrogate_csnn_pictures
from jaxsnn.training.firing_start import firing_start
from jaxsnn.training.run_files import Record
from jaxsnn.training.task import Task, evaluate
from jaxsnn.training.through_time import spiking_net, threshold, through_time, watch
from jaxsnn.types import Json, Tree, Variables

NETWORK = ("dataset", "spike")
STILLS = ("num_steps",)
EVENTS = ("time_window", "event_count", "frames", "filter_time")
NEURON = ("beta", "slope", "surrogate", "reset", "learn", "loss")
START = ("seed", "checkpoint", "initial_rate")
TRAINING = ("batch_size", "limit_train", "validation", "subset")
AUGMENTED = ("rotation", "shift", "dropped_events", "time_jitter")
WHOLE = 10_000  # test examples of the original, in both data sets
UPDATE = 7  # additions that a leaky update costs: drive, comparison, reset, a product worth four
PUBLISHED = {"mnist": 0.9912, "nmnist": 0.9705}
MOST = 100  # examples per compiled call of a simulation
BLOCK = 10  # steps of it that are computed layer by layer
LUCK = 1.5  # times chance: what an accuracy must reach to count as learned
AWAKENING = 8  # training examples that decide the scale of the first weights
SAMPLES = 5  # test samples whose spikes are looked at, and kept for the pictures
MICRO_BATCH = 2  # on a CPU, where what is kept for the way back then stays in the cache


class Csnn(System[NmnistCsnn]):
    """One setting on one data set: its data, network and folder."""

    system = "surrogate_csnn"
    stages: ClassVar[Mapping[str, Stage]] = {
        **COMMON,
        "evaluate": COMMON["evaluate"]._replace(
            what="accuracy of the trained network on the test set, by spike count"
        ),
        "simulate": COMMON["simulate"]._replace(
            what="simulate the test set: spikes, operations, energy; results.json, samples.npz"
        ),
    }
    figures = Figures(
        apart={"accuracy": accuracy.accuracy_over_time},
        joined={"accuracy": accuracy.accuracy_over_time},
        trained={"train_loss": training.loss_by_epoch, "test_acc": training.accuracy_by_epoch},
    )
    every = ("train", "simulate", "plot")  # a simulation says the accuracy, too

    def __init__(self, config: NmnistCsnn) -> None:
        """Read the data and refuse what does not fit; nothing is written."""
        config.refuse_idle()
        self.config = config
        self.material = surrogate_csnn_data.read(config)
        shape, classes = self.material.input_shape, self.material.classes
        self.arch = dataclasses.replace(zoo.csnn_static, input_shape=shape, classes=classes)
        plan(self.arch)  # refuses images that the network cannot take
        self.net = spiking_net(self.arch, self._cell(), self._cell(self._emitted))
        task = through_time(self.net, self.material.stimulus, config.loss, config.time_block)
        self.task = task._replace(init=self._initial(task))
        network = (*NETWORK, *(EVENTS if config.spike else STILLS), *NEURON)
        identity = (*network, *START, *TRAINING, *AUGMENTED, "padded_loss")
        self.run = Run(Path(config.out) / config.setting, config, identity, network)

    @property
    def _emitted(self) -> Emit:
        return "potential" if self.config.loss == "ce_membrane" else "spike"

    def _cell(self, emit: Emit = "spike") -> neurons.Neuron:
        """The neuron that the settings ask for."""
        config = self.config
        return neurons.leaky(
            leak=config.beta,
            reset=config.reset,
            surrogate=config.surrogate,
            slope=config.slope,
            learn=config.learn,
            emit=emit,
        )

    def _initial(self, task: Task) -> Callable[[Array], Variables]:
        """Where training starts: at random, firing if so asked, or from ``--checkpoint``."""
        if not self.config.checkpoint:
            return self._firing(task) if self.config.initial_rate else task.init
        loaded = _weights(load_arrays(weights_at(self.config.checkpoint))[0])
        expected = _weights(flatten(net_module.template(self.net)))
        weights = flatten(load_params(loaded, expected))
        return lambda key: unflatten({**flatten(task.init(key)), **weights})

    def _firing(self, task: Task) -> Callable[[Array], Variables]:
        """Weights as drawn, each layer scaled until it fires on the first training examples."""
        examples = jax.tree.map(functools.partial(_first, AWAKENING), self.material.parts[0])
        stimulus, rate = self.material.stimulus, self.config.initial_rate or 0.0
        steps = self.config.num_steps
        if stimulus.lengths is not None:
            steps = int(np.max(stimulus.lengths(examples)))

        def init(key: Array) -> Variables:
            shown = stimulus.show(jax.tree.map(_on_device, examples), None, steps)
            return firing_start(self.net, task.init(key), shown, rate)

        return init

    @property
    def _spiking_net(self) -> net_module.Net:
        """The network, whose readout spikes whatever it was trained by."""
        return spiking_net(self.arch, self._cell(), self._cell("spike"))

    # ------------------------------------------------------------ stages

    def train(self) -> None:
        """Train, or resume; ``training.log`` says after every epoch how it stands."""
        size = self.config.batch_size
        micro_batch = self.config.micro_batch  # one that does not divide the batch is refused
        if micro_batch is None:
            micro_batch = self._micro_batch(size // devices(self.config, size))
        train_run(self.run, self.task, self.material.parts, micro_batch, self._after_epoch)

    def _after_epoch(self, record: Record, variables: Variables) -> Record:
        """The record, with the test accuracy where it is asked for; rewrites training.log."""
        if self.config.test_every_epoch:
            record = {**record, "test_accuracy": self.evaluate(variables)}
        if (record["train_accuracy"] or 0) < LUCK / self.material.classes:
            self._warn_silent(record["epoch"], variables)
        written = self.run.folder / "metrics.jsonl"
        earlier = metrics.read_metrics(written) if written.is_file() else []
        before = [one for one in earlier if one["epoch"] < (record["epoch"] or 0)]
        text = "\n".join([str(self.config), *map(_log_lines, [*before, record]), ""])
        files.write_bytes(self.run.folder / "training.log", text.encode())
        return record

    def _warn_silent(self, epoch: float | None, variables: Variables) -> None:
        """Say which layers never spike, where a network predicts no better than by chance."""
        _, spikes, shown = self._watched(variables)
        if self._emitted == "potential":  # the readout learns without spiking
            spikes.pop(plan(self.arch)[-1].name)
        silent = [name for name, emitted in spikes.items() if not np.asarray(emitted).any()]
        if silent:
            frames = f"fewer and fuller frames (--frames below {shown.steps}), "
            print(
                f"warning: epoch {epoch}: no neuron of {', '.join(silent)} spiked on the first "
                f"test examples, and hardly any gradient passes a silent layer; try "
                f"{frames if self.config.spike else ''}smaller batches, or a surrogate that "
                "reaches further below the threshold (a smaller --slope)",
                file=sys.stderr,
            )

    def variables(self) -> Tree:
        """Trained variables."""
        return self.run.variables(net_module.template(self.net))

    def evaluate(self, variables: Variables | None = None) -> float:
        """Test accuracy by spike count."""
        trained, data = self.variables() if variables is None else variables, self.material
        size = min(MOST, len(data.labels))
        part = self._micro_batch(size)
        measured = evaluate(self.task, trained, data.test, data.labels, size, micro_batch=part)
        return measured["accuracy"]

    def _micro_batch(self, share: int) -> int | None:
        """Examples at once, of those that a device has: on a CPU few, else all."""
        most = self.config.micro_batch
        if most is None and jax.default_backend() == "cpu":
            most = MICRO_BATCH
        return most and max(n for n in range(1, most + 1) if share % n == 0)

    def simulate(self, console: Console) -> None:
        """Simulate the test set; write model, samples and results.json."""
        variables = self.variables()
        snn = directly_trained(self._spiking_net, variables, self.material.encoding)
        saved.save(snn, self.run.folder / "snn.npz")
        evaluation, seconds = self._spiking(snn)
        self._samples(variables)
        results.write_results(self.run.folder, self._results(snn, evaluation, seconds))
        right = evaluation.accuracy_per_step[-1]
        show(f"{self.config.setting}: test accuracy {right:.2%}", console)

    def _spiking(self, snn: Spiking) -> tuple[Evaluation, dict[str, float]]:
        """Simulate the test set; what came out, and the seconds it took."""
        shown, labels = self.material.shown, self.material.labels
        size = batch_within(len(labels), MOST, self.config.devices)
        return timing.timed(
            snn,
            shown,
            labels,
            batch_size=size,
            devices=own_devices(self.config, size),
            steps=self.material.steps,
            block=BLOCK,
        )

    def _watched(self, variables: Variables) -> tuple[Tree, Tree, Shown]:
        """Potentials and spikes of the first test samples, by site, and how they are shown."""
        examples = jax.tree.map(functools.partial(_first, SAMPLES), self.material.test)
        batch = jax.tree.map(_on_device, examples)
        shown = self.material.stimulus.show(batch, None, self.material.steps)
        sites = tuple(site.name for site in plan(self.arch) if site.role != "pool")
        return *watch(self._spiking_net, variables, shown.x, shown.steps, sites), shown

    def _samples(self, variables: Variables) -> None:
        """Keep what the pictures show of the first test samples."""
        potentials, spikes, shown = self._watched(variables)
        head = plan(self.arch)[-1].name
        surrogate_csnn_pictures.keep(
            self.run.folder,
            self.material.labels[:SAMPLES],
            {name: np.asarray(emitted) for name, emitted in spikes.items()},
            np.asarray(potentials[head]),
            np.asarray(threshold(variables, head)),
            None if shown.mask is None else np.asarray(shown.mask),
        )

    @classmethod
    def draw(cls, config: NmnistCsnn) -> dict[str, Path]:
        """Draw all figures from files of earlier runs alone; a picture of each, by name."""
        runs = scan.scan_folders(config.out)
        levels: dict[str, Mapping[str, float]] = {}
        for folder, row in runs.items():
            number = surrogate_csnn_pictures.classes_of(folder)
            if number and row.training and row.training.parts.get("loss") == "ce_rate":
                levels[row.setting] = training.rate_loss_levels(number)
        drawn = draw_all(config.out, {cls.system: cls.figures}, config.compared, levels)
        pictures = {name: paths[0] for name, paths in drawn.items()}
        for folder, row in runs.items():
            drawn_here = surrogate_csnn_pictures.draw(folder)
            pictures |= {f"{row.setting}/{name}": path for name, path in drawn_here.items()}
        return pictures

    def _results(
        self, snn: Spiking, evaluation: Evaluation, seconds: dict[str, float]
    ) -> results.Results:
        """The content of results.json."""
        counting, tested = result_fields.Counting(1, UPDATE, heads=True), len(self.material.labels)
        whole = self.config.limit_test is None and tested == WHOLE
        fields = result_fields.spiking_fields(snn, evaluation, None, counting)
        fields["accuracy_settled_step"] = None  # a held image, or events, never come to rest
        fields_of_run = result_fields.run_fields(self.run, self.system, self.material.name, tested)
        fields_of_run["seconds"] |= seconds
        return results.Results(
            ann_macs_per_image=result_fields.macs_driven_by_spikes(self.arch, heads=True),
            precision="float32",
            paper=published(self.material.name, self.config) if whole else None,
            **fields,
            **fields_of_run,
        )


def _weights(arrays: Variables) -> Tree:
    """Kernels and biases; what belongs to the neurons comes from the settings."""
    return {name: leaf for name, leaf in arrays.items() if name.endswith(("/kernel", "/bias"))}


def published(dataset: str, config: NmnistCsnn) -> Paper | None:
    """What the original reports of its network on a data set."""
    if dataset not in PUBLISHED or config.loss != "ce_rate":
        return None
    return {"snn_accuracy": PUBLISHED[dataset]}


def _first(count: int, leaf: np.ndarray) -> np.ndarray:
    return leaf[:count]


def _on_device(leaf: np.ndarray) -> Array:
    return jnp.asarray(leaf)


def _log_lines(record: Mapping[str, Json]) -> str:
    """Three lines of an epoch, as the original's log has them."""
    epoch, rate = record["epoch"], record["learning_rate"]
    lines = [f"Epoch {epoch}: learning rate {rate:g}"]
    lines.append(f"Epoch {epoch}: train loss {record['train_loss']:.6f}")
    for what in ("validation", "test"):
        value = record.get(f"{what}_accuracy")
        if value is not None:
            lines.append(f"Epoch {epoch}: {what} accuracy {value:.4f}")
    return "\n".join(lines)
