"""What the paper of BayesianSpikeFusion claims."""

from jaxsnn.systems.setting import Paper
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion as Settings

SAVING = {  # per cent of the energy, of each family of networks over the paper's data sets
    **dict.fromkeys(("vgg11", "vgg16", "vgg19"), 38.8),
    **dict.fromkeys(("resnet18", "resnet34"), 48.0),
}


def published(dataset: str, config: Settings) -> Paper:
    """What the paper's abstract claims for a family of networks, over its data sets."""
    del dataset
    return {"energy_saving_percent": SAVING[config.arch]}
