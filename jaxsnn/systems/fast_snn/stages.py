"""The stages of Fast-SNN's script, and how ``progressive`` goes from width to width."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxsnn.errors import UserError
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.io.files import read_text
from jaxsnn.report import scan, table, variants
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.settings.fast_snn import FastSnn
from jaxsnn.systems.stages import COMMON, Request, Stage


def _evaluate(request: Request) -> None:
    _weights(request)
    request.one.redraw("evaluate")
    COMMON["evaluate"].work(request)


def _snn(request: Request) -> None:
    if request.config.bit == 32 and request.stage == "snn":
        raise UserError("--bit 32: 32 bits cannot be converted; train and convert 4, 3 or 2")
    _weights(request)
    request.one.simulate(request.console)
    _table(request)


def _finetune(request: Request) -> None:
    if request.config.bit == 32 and request.stage == "all":
        return
    _weights(request)
    request.one.finetune(request.console)
    _table(request)


def _weights(request: Request) -> None:
    """Asked for by itself, a stage behind training takes the weights of ``--init``."""
    if request.stage != "all" and request.config.init:
        request.one.take(request.config.init)


def _table(request: Request) -> None:
    rows = scan.scan_results(request.config.out)
    table.print_table(rows, f"{request.config.dataset}: all settings")
    variants.print_variants(rows)


def _progressive(request: Request) -> None:
    """Every width, each from the best weights of the last."""
    before = ""
    widths: Iterable[FastSnn] = request.config.widths()
    for config in widths:
        folder = Path(config.out) / config.setting
        resume = config.resume and bool(Checkpoints(folder / "checkpoints").steps())
        init = before or config.init
        if resume:  # the folder may have moved since
            path = folder / "config.json"
            init = from_json(type(config), read_text(path), str(path))[0].init
        config = dataclasses.replace(config, init=init, resume=resume)
        step = dataclasses.replace(request, config=config)
        step.say(f"{config.setting}:")
        step.one.train()
        if not step.one.simulated:
            step.one.simulate(step.console)
        if config.bit != 32:
            step.one.finetune(step.console)
        before = str(step.one.run.folder)
    _table(request)
    COMMON["plot"].work(request)


STAGES: Mapping[str, Stage] = {
    "train": COMMON["train"],
    "evaluate": COMMON["evaluate"]._replace(work=_evaluate),
    "snn": Stage("convert, simulate and certify; results.json", _snn),
    "finetune": Stage("fine-tune the spiking network layer by layer", _finetune),
    "plot": COMMON["plot"],
    "progressive": Stage(
        "train, snn and finetune for 32, 4, 3, ... bits down to --bit, each from the last",
        _progressive,
    ),
}
EVERY = ("train", "evaluate", "snn", "finetune", "plot")
