"""What is trained, how, and the compiled update; run files and layer-wise fine-tuning.

A task (``classification``, ``through_time``) says what is trained, :class:`Options` how; ``train``
goes through the epochs, survives a kill and resumes bit for bit.
"""

from jaxsnn.training import finetune, schedules
from jaxsnn.training.distillation import distilled
from jaxsnn.training.early_loss_weight import Ramp, share_of_macs
from jaxsnn.training.finetune_quantised import Finetuned, finetune_quantised
from jaxsnn.training.firing_start import firing_start
from jaxsnn.training.losses_over_time import LOSSES
from jaxsnn.training.one_pass import classification
from jaxsnn.training.options import Options
from jaxsnn.training.recipe import FAST, FINETUNE, PAPER, Recipe
from jaxsnn.training.run_files import Record
from jaxsnn.training.task import Task
from jaxsnn.training.through_time import spiking_net, threshold, through_time, watch
from jaxsnn.training.train import AfterEpoch, Data, train
from jaxsnn.training.update import TrainState

__all__ = [
    "FAST",
    "FINETUNE",
    "LOSSES",
    "PAPER",
    "AfterEpoch",
    "Data",
    "Finetuned",
    "Options",
    "Ramp",
    "Recipe",
    "Record",
    "Task",
    "TrainState",
    "classification",
    "distilled",
    "finetune",
    "finetune_quantised",
    "firing_start",
    "schedules",
    "share_of_macs",
    "spiking_net",
    "threshold",
    "through_time",
    "train",
    "watch",
]
