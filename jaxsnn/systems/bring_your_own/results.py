"""What results.json says of a network that somebody brought: the method taken, and the others."""

import dataclasses
from collections.abc import Mapping

from jaxsnn.conversion.method import Method
from jaxsnn.data.base import Dataset
from jaxsnn.io import environment
from jaxsnn.report.comparison import Comparison, Trial
from jaxsnn.report.results import Part, Results, Variant
from jaxsnn.systems import result_fields
from jaxsnn.systems.settings.bring_your_own import BringYourOwn

NUMBERS = ("k", "bound", "bits")  # options of an activation that tell networks apart


def results_of(config: BringYourOwn, data: Dataset, tried: Comparison) -> Results:
    """The content of results.json: the method that was taken, the others as variants."""
    best = tried.best
    snn = tried.networks[best.label]
    options = dict(snn.ann.default.options)
    where = environment.environment()
    fields = result_fields.spiking_fields(
        snn,
        tried.evaluations[best.label],
        tried.certificates.get(best.label),
        result_fields.Counting(),
    )
    fields["energy_pj_per_image"] = best.energy_pj_per_image  # updates as the method counts them
    return Results(
        experiment=config.experiment,
        system=best.method,
        dataset=data.name,
        setting=best.label,
        settings=config.described(*(_whole(options.get(name)) for name in NUMBERS)),
        argv=list(config.argv) or None,
        test_examples=tried.images,
        float_ann_accuracy=tried.accuracy,
        ann_accuracy=best.quantised_accuracy,
        conversion=_options(tried.methods[best.label]),
        variants=[_variant(trial) for trial in tried.trials if trial.applies],
        seed=config.seed,
        **{name: where[name] for name in ("device", "versions", "commit")},
        **fields,
    )


def _options(method: Method) -> dict[str, Part]:
    """The options of a method, but for tables of numbers."""
    named = {one.name: getattr(method, one.name) for one in dataclasses.fields(method)}
    return {name: value for name, value in named.items() if not isinstance(value, Mapping)}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _variant(trial: Trial) -> Variant:
    return Variant(
        kind=trial.label,
        accuracy=trial.accuracy,
        steps=trial.steps,
        spikes_per_image=trial.spikes_per_image,
        sops_per_image=trial.operations_per_image,
        energy_pj_per_image=trial.energy_pj_per_image,
    )
