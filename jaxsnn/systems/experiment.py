"""What every system shares that trains a quantised ANN and converts it: the stages.

Train, evaluate, simulate (convert, simulate, certify, add noise), certify, keep and plot; what a
system says of itself stands in :mod:`jaxsnn.systems.setting`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
from jax import Array
from rich.console import Console

from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.equality.certificate import Certificate
from jaxsnn.equality.certify import certify
from jaxsnn.errors import UserError
from jaxsnn.exchange import saved
from jaxsnn.inputs import preprocess
from jaxsnn.io import processes
from jaxsnn.io.arrays import unflatten, worth
from jaxsnn.io.terminal import show
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net
from jaxsnn.report.results import Results, Variant, write_results
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems import result_fields, timing
from jaxsnn.systems.recipe_run import TrainedConfig, train_recipe
from jaxsnn.systems.result_fields import Fields
from jaxsnn.systems.run_folder import KEPT, held_out, task_data
from jaxsnn.systems.setting import Horizon, Setting
from jaxsnn.systems.settings.conversion import Conversion
from jaxsnn.systems.shared_batches import own_devices
from jaxsnn.systems.stages import COMMON, Request, Stage
from jaxsnn.training.one_pass import classification
from jaxsnn.training.task import evaluate as evaluate_ann
from jaxsnn.types import JsonObject, Tree, Variables


def _certify(request: Request) -> None:
    request.one.certify(request.console)


def _keep(request: Request) -> None:
    request.one.keep(request.console)


class Experiment(Setting[TrainedConfig]):
    """One setting on one data set, and its way from training to results.json."""

    measured = "ANN test accuracy"
    stages: ClassVar[Mapping[str, Stage]] = {
        **COMMON,
        "certify": Stage("compare SNN and ANN neuron by neuron; writes nothing", _certify),
        "keep": Stage(f"write the weights as whole numbers, compressed: {KEPT}", _keep),
    }

    def train(self) -> None:
        """Train, or resume."""
        if self.paper_implied and processes.is_primary():
            print("--learning-rate or --schedule without --recipe: trained by the recipe paper")
        validation = held_out(len(self.data.train_images), self.config.validation)
        data = task_data(self.data, validation)
        train_recipe(self.run, self.task, self.net, self.preprocessing, data)

    def variables(self) -> Tree:
        """Trained variables."""
        return self.run.variables(net_module.template(self.net))

    def evaluate(self, variables: Variables | None = None, net: Net | None = None) -> float:
        """Test accuracy of the ANN in float32; by default as it was trained."""
        variables = self.variables() if variables is None else variables
        task = classification(net or self.net, preprocess.unchanged(self.encoding))
        evaluated = evaluate_ann(task, variables, self.images, self.data.test_labels, self.batch)
        return evaluated["accuracy"]

    def simulate(self, console: Console) -> Results:
        """Convert, simulate, certify, add noise; write model, text files and results.json."""
        variables = self.variables()
        results = self._base(self.evaluate(variables))
        if not self.config.full_precision:
            snn = self.converted(variables)
            saved.save(snn, self.run.folder / "snn.npz")
            timing.print_report(snn, console)
            evaluation, seconds = self._spiking(snn)
            if share := evaluation.undecided_share:
                show(result_fields.undecided(share, evaluation.steps), console)
            fields = self._compared(snn, variables, evaluation, results, console)
            fields["seconds"] = {**(results.seconds or {}), **seconds}
            # Noisy images may settle later.
            steps = evaluation.steps * (2 if self.horizon.settle else 1)
            fields["noise"] = self._noisy(snn, steps)
            results = dataclasses.replace(results, **fields)
        write_results(self.run.folder, results)
        return results

    def _spiking(self, snn: Spiking) -> tuple[Evaluation, dict[str, float]]:
        """Simulate the test set, write the text files; what came out, and the seconds it took."""
        evaluation, seconds = self._simulated(snn, self.horizon)
        self.text_files(evaluation)
        return evaluation, seconds

    def _simulated(self, snn: Spiking, horizon: Horizon) -> tuple[Evaluation, dict[str, float]]:
        """Simulate the test set; what came out, and the seconds it took."""
        return timing.timed(
            snn,
            lambda rows: self.images[rows],
            self.data.test_labels,
            batch_size=self.batch,
            devices=own_devices(self.config, self.batch),
            steps=horizon.steps,
            settle=horizon.settle,
        )

    def _noisy(self, snn: Spiking, steps: int) -> list[JsonObject]:
        """Accuracy under noise, for the settings that ask for it."""
        if not isinstance(self.config, Conversion):
            return []
        labels = self.data.test_labels
        return timing.noisy(snn, self.images, labels, self.config, self.noise_site, steps)

    def _compared(
        self,
        snn: Spiking,
        variables: Variables,
        spiking: Evaluation,
        results: Results,
        console: Console,
    ) -> Fields:
        """Fields of results.json from simulation and certificate."""
        proof = self._proof(snn, variables, console)
        fields = result_fields.spiking_fields(
            snn, spiking, proof, self.counting, self.horizon.settle
        )
        fields["conversion"] = self.conversion_settings
        fields["ann_accuracy"] = self.evaluate(snapped(variables, snn), snn.float_ann)
        fields["variants"] = [
            Variant(kind="ANN, weights as trained", accuracy=results.ann_accuracy)
        ]
        cost = (results.ann_accuracy or 0) - fields["ann_accuracy"]
        show(f"the grid of the weights costs {100 * cost:.2f} points of accuracy", console)
        return fields

    def _proof(
        self,
        snn: Spiking,
        variables: Variables,
        console: Console,
        horizon: Horizon | None = None,
        name: str = "",
    ) -> Certificate:
        """The certificate of the first test images, of a variant with its own horizon and name."""
        horizon = self.horizon if horizon is None else horizon
        images = self.images[: self.certified]
        proof = certify(
            snn,
            variables,
            images,
            steps=horizon.steps,
            settle=horizon.settle,
            batch_size=min(self.batch, len(images)),
            progress="certifying",
        )
        show(f"{name}{', ' if name else ''}certificate: {proof}", console)
        return proof

    def certify(self, console: Console) -> Certificate:
        """Convert and certify, and say the accuracy; nothing is written.

        Raises:
            UserError: a network of full precision.
        """
        self._refuse_floats("certify")
        variables = self.variables()
        snn = self.converted(variables)
        accuracy = self.evaluate(snapped(variables, snn), snn.float_ann)
        show(f"{self.config.setting}: {self.measured} {accuracy:.2%}", console)
        return self._proof(snn, variables, console)

    def keep(self, console: Console) -> Path:
        """Write kept.npz, which converts into the same network.

        Raises:
            UserError: it would not, or a network of full precision; nothing is written.
        """
        self._refuse_floats("keep")
        variables = self.variables()
        snn, path = self.converted(variables), self.run.folder / KEPT
        arrays, units = saved.whole_weights(variables, snn)
        again = self.converted(unflatten(arrays | worth(arrays, units)))
        if not _same(again, snn):
            raise UserError(
                f"{self.run.weights()} as whole numbers would convert into another network; keep "
                "the file as it is"
            )
        saved.save_weights(arrays, units, path)
        show(f"{path}: weights as whole numbers", console)
        return path

    def _refuse_floats(self, stage: str) -> None:
        if self.config.full_precision:
            raise UserError(
                f"--precision fp32: a network of full precision is not converted, which leaves "
                f"nothing for the stage {stage}; leave the flag out"
            )

    def _base(self, accuracy: float) -> Results:
        """What every setting reports, spiking or not."""
        full = self.config.full_precision
        fields = result_fields.run_fields(
            self.run, self.system, self.data.name, len(self.data.test_labels)
        )
        return Results(
            **fields,
            float_ann_accuracy=accuracy if full else None,
            ann_accuracy=None if full else accuracy,
            ann_macs_per_image=result_fields.macs_driven_by_spikes(self.arch, self.heads),
            precision="float32" if full else self.precision,
            paper=self.paper() if self.config.limit_test is None else None,
        )


def _same(one: Spiking, other: Spiking) -> bool:
    """Whether two converted networks compute the same."""
    settings = [(snn.accumulators, snn.units, snn.encoding) for snn in (one, other)]
    alike = jax.tree.map(_equal, one.variables, other.variables)
    return settings[0] == settings[1] and jax.tree.all(alike)


def _equal(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)
