"""The command: read, calibrate, try every method, fine-tune if asked, keep, draw, say."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from jaxsnn.arch.notation import format
from jaxsnn.arch.plan import totals
from jaxsnn.conversion import methods
from jaxsnn.conversion.calibration import Calibration, calibrate
from jaxsnn.conversion.method import Method
from jaxsnn.data.base import Dataset
from jaxsnn.data.by_name import load
from jaxsnn.data.splits import limited, limited_rows
from jaxsnn.errors import UserError
from jaxsnn.exchange import saved
from jaxsnn.exchange.compare import compare
from jaxsnn.inputs.preprocess import units_of
from jaxsnn.io.arrays import flatten, save_arrays
from jaxsnn.io.files import plain, write_bytes, write_json
from jaxsnn.io.progress import duration
from jaxsnn.io.terminal import console, nobody_reads, show
from jaxsnn.network.net import Variables
from jaxsnn.report.comparison import Comparison, Trial
from jaxsnn.report.results import Results, write_results
from jaxsnn.systems import endings
from jaxsnn.systems.bring_your_own.network import Brought, preprocessing_of, read_network
from jaxsnn.systems.bring_your_own.pictures import draw
from jaxsnn.systems.bring_your_own.results import results_of
from jaxsnn.systems.command_line import parse_flags
from jaxsnn.systems.settings.bring_your_own import BringYourOwn
from jaxsnn.training.finetune_quantised import finetune_quantised
from jaxsnn.training.finetune_record import RECORD
from jaxsnn.training.recipe import FINETUNE

T = TypeVar("T")

PROGRAM = "python -m jaxsnn convert"
ABOUT = """For example:

python -m jaxsnn convert resnet20.th --data cifar10 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225
--head-pool --arch 16C3p1-[16C3p1-16C3p1]+identity-...

WEIGHTS comes first. Nothing is trained unless --finetune-epochs says so."""


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status: 2 for what cannot be used, in one line."""
    endings.any_characters(sys.stdout, sys.stderr)
    config = parse_flags(BringYourOwn, argv, PROGRAM, ABOUT)
    object.__setattr__(config, "argv", tuple(argv))
    try:
        with endings.within_seconds():
            convert_network(config)
            sys.stdout.flush()
    except BrokenPipeError:
        return nobody_reads()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print("stopped before the end; start it again to have every file", file=sys.stderr)
        return endings.status_of(stopped)
    return 0


def convert_network(config: BringYourOwn, to: Console | None = None) -> Results:
    """Do what the command does; what it writes lies in ``config.out``.

    Args:
        config: which network, and what is asked of it.
        to: where it says what it finds; None: standard output.

    Returns:
        The content of results.json.

    Raises:
        UserError: data, weights or flags that cannot be used, or a network that no method converts.
    """
    to = to or console()
    return _Run(config, to).whole()


class _Run:
    """One call: data, network, and what was found so far."""

    def __init__(self, config: BringYourOwn, to: Console) -> None:
        self.config, self.to, self.began = config, to, time.monotonic()
        self.data = _data(config)
        self.preprocessing = preprocessing_of(config, self.data.input_shape)
        shape = self.preprocessing.shape(self.data.input_shape)
        self.brought: Brought = read_network(config, shape, self.data.classes)
        self.units = units_of(self.preprocessing, self.data.test_images)

    def whole(self) -> Results:
        """Everything, in order."""
        Path(self.config.out).mkdir(parents=True, exist_ok=True)  # before hours are spent
        show(self.brought.table, self.to)
        arch = self.brought.arch
        show(
            f"{format(arch)}: {totals(arch).all_parameters:,} parameters, "
            f"{totals(arch).neurons:,} neurons",
            self.to,
        )
        calibration = self.calibrated(self.brought.variables, self.config.balance)
        tried = self.compared(calibration, _methods(self.config, calibration))
        if self.config.finetune_epochs:
            calibration, tried = self.finetuned(calibration, tried)
        self.say(tried)
        return self.kept(calibration, tried)

    def calibrated(self, variables: Variables, balance: bool, said: bool = True) -> Calibration:
        """Clips, bounds and scales, from training images."""
        config, data = self.config, self.data
        rows = limited_rows(data.train_labels, config.calibration, config.seed)
        calibration = calibrate(
            variables,
            self.brought.arch,
            units_of(self.preprocessing, data.train_images[rows]),
            encoding=self.preprocessing.encoding,
            bits=config.bits,
            balance=balance,
            batch_size=config.batch_size,
            progress="calibrating",
        )
        if said:
            show(_words(calibration), self.to)
        return calibration

    def compared(self, calibration: Calibration, tried: Sequence[Method]) -> Comparison:
        """The methods on the test images."""
        config = self.config
        return compare(
            calibration.variables,
            calibration.arch,
            self.units,
            self.data.test_labels,
            encoding=self.preprocessing.encoding,
            calibration=calibration,
            methods=tried,
            rate_steps=config.rate_steps,
            settling_steps=config.settling_steps,
            certified=config.certify,
            batch_size=config.batch_size,
            progress=True,
            after=self.say_trial,
        )

    def finetuned(
        self, calibration: Calibration, tried: Comparison
    ) -> tuple[Calibration, Comparison]:
        """The method that was taken, once more after fine-tuning; beside what was tried before.

        The calibration is that of the network that is taken then, which may be the one before.
        Rates code the network as it is: where they are taken, nothing is fine-tuned.
        """
        config, data = self.config, self.data
        method, folder = tried.methods[tried.best.label], Path(config.out) / "finetune"
        if isinstance(method, methods.rate):
            show(f"{tried.best.label} codes the network as it is: nothing is fine-tuned", self.to)
            return calibration, tried
        if not config.resume and (folder / RECORD).exists():
            shutil.rmtree(folder, ignore_errors=True)  # the next run writes over the last
        tuned = finetune_quantised(
            calibration.variables,
            calibration.arch,
            (data.train_images, data.train_labels, None, None),
            method,
            preprocessing=self.preprocessing,
            recipe=dataclasses.replace(
                FINETUNE,
                learning_rate=config.learning_rate,
                batch_size=config.finetune_batch_size,
            ),
            epochs=config.finetune_epochs,
            distillation=config.distillation,
            seed=config.seed,
            directory=folder,
            resume=config.resume and folder.exists(),
        )
        after = dataclasses.replace(
            self.calibrated(tuned.variables, balance=False, said=False), variables=tuned.variables
        )
        if isinstance(method, methods.negative_spikes):
            method = dataclasses.replace(method, highest=after.highest(method.k))
        again, epochs = self.compared(after, [method]), f"{config.finetune_epochs} epochs"
        trials = [
            dataclasses.replace(
                one,
                options=", ".join(filter(None, (one.options, epochs))),
                given_predictions=None,  # counted from the tuned weights, not from those brought
            )
            for one in again.trials
        ]
        old, new = again.trials[0].label, trials[0].label
        both = dataclasses.replace(
            again,
            accuracy=tried.accuracy,
            trials=(*trials, *tried.trials),
            networks=_renamed(tried.networks, again.networks, old, new),
            evaluations=_renamed(tried.evaluations, again.evaluations, old, new),
            certificates=_renamed(tried.certificates, again.certificates, old, new),
            methods=_renamed(tried.methods, again.methods, old, new),
        )
        return after if both.best.label == new else calibration, both

    def say_trial(self, trial: Trial) -> None:
        """One line for a method as soon as it has been tried."""
        if trial.applies:
            text = f"{trial.label}: {trial.accuracy:.2%}, {trial.equality}"
            show(f"{text}, {duration(trial.seconds or 0)}", self.to)
        else:
            show(f"{trial.label}: does not apply", self.to)

    def say(self, tried: Comparison) -> None:
        """The table, the reasons, the choice."""
        show(tried, self.to)
        for label, reason in tried.reasons.items():
            show(f"{label} does not apply: {reason}", self.to)
        best = tried.best
        show(f"taken: {best.label}: {best.accuracy:.2%}, {best.equality}", self.to)

    def kept(self, calibration: Calibration, tried: Comparison) -> Results:
        """Write everything into the folder, and draw."""
        config, best, folder = self.config, tried.best, Path(self.config.out)
        snn, proof = tried.networks[best.label], tried.certificates.get(best.label)
        results = results_of(config, self.data, tried)
        saved.save(snn, folder / "snn.npz")
        arrays = {name: np.asarray(a) for name, a in flatten(calibration.variables).items()}
        save_arrays(folder / "model.npz", arrays)
        write_results(folder, results)
        write_json(folder / "comparison.json", plain(tried.to_json()))
        write_bytes(folder / "arrays.txt", f"{self.brought.table}\n".encode())
        certificate = folder / "certificate.txt"
        if proof is None:
            certificate.unlink(missing_ok=True)  # that of an earlier run
        else:
            write_bytes(certificate, f"{proof}\n".encode())
        first = _first_right(tried.evaluations[best.label].predictions[-1], self.data)
        drawn = draw(
            folder,
            tried,
            results,
            snn,
            self.units[first : first + 1],
            self.data.test_images[first],
            int(self.data.test_labels[first]),
        )
        for name, path in drawn.items():
            show(f"{name}: {path}", self.to)
        show(f"{folder}: {duration(time.monotonic() - self.began)} in all", self.to)
        return results


def _data(config: BringYourOwn) -> Dataset:
    """The data set, shortened as the flags say.

    Raises:
        UserError: it has no test image, or as :func:`jaxsnn.data.load`.
    """
    data = load(config.dataset, config.data_dir)
    if not len(data.test_labels):
        raise UserError(f"{data.source}: there is no test image to measure on")
    return limited(data, config.limit_train, config.limit_test)


def _words(calibration: Calibration) -> str:
    """What the calibration images say."""
    return (
        f"calibrated on {calibration.images:,} training images: activations reach "
        f"{calibration.largest:.3g}, {calibration.k} fractional bits see "
        f"{calibration.agreement[calibration.k]:.1%} of them alike, clips of "
        f"{calibration.bits} bits change the logits by {calibration.clip_error:.1%}"
    )


def _methods(config: BringYourOwn, calibration: Calibration) -> list[Method]:
    """The methods that are asked for, with ``k`` where it is said."""
    every: list[Method] = [
        calibration.scatter_gather(config.k),
        calibration.negative_spikes(config.k),
        *calibration.candidates[2:],
    ]
    return [one for one in every if config.method in ("auto", one.name)]


def _renamed(before: Mapping[str, T], again: Mapping[str, T], old: str, new: str) -> dict[str, T]:
    """What was found before and again, the new ones under their new name."""
    return {new if label == old else label: one for label, one in again.items()} | dict(before)


def _first_right(predictions: np.ndarray, data: Dataset) -> int:
    """Number of the first test image that is predicted rightly, 0 where there is none."""
    return int(np.argmax(predictions == data.test_labels))
