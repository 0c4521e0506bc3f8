"""The settings of a stage that names the folder of a trained run: those of the run."""

import dataclasses
from pathlib import Path

from jaxsnn.errors import UserError
from jaxsnn.io import files
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion as Settings

OF_RUN = (  # what a run's folder says of itself
    *("dataset", "arch", "ic_index", "data_dir", "limit_train", "limit_test", "validation", "seed"),
)
ANEW = ("data_dir", "limit_test")  # of these, what may be asked for anew


def of_run(config: Settings) -> Settings:
    """The settings with data set and network of the run that they name, if they name one.

    Raises:
        UserError: there is no run, or other settings were asked for beside it.
    """
    if not config.run:
        return config
    path = Path(config.run) / "config.json"
    if not path.is_file():
        raise UserError(f"{config.run} holds no trained network (config.json); train it first")
    saved, _ = from_json(type(config), files.read_text(path), str(path))
    taken = {name: getattr(saved, name) for name in OF_RUN}
    for name in ANEW:
        if getattr(config, name) is not None:
            taken[name] = getattr(config, name)
    usual, middle = type(config)(), type(config)(arch=config.arch).ic_index
    for name, value in taken.items():
        asked = getattr(config, name)
        # A usual value may not have been given at all.
        if asked not in (value, middle if name == "ic_index" else getattr(usual, name)):
            raise UserError(f"{path} has {name} = {value!r}, not {asked!r}; leave --{name} out")
    return dataclasses.replace(config, **taken, out=str(Path(config.run).parent))
