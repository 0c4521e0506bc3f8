"""Distillation: a network learns what a trained one answers, beside what the labels say."""

import functools

import jax
import optax
from jax import Array

from jaxsnn.errors import finite_number
from jaxsnn.inputs.preprocess import Moment, Preprocessing
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net
from jaxsnn.training.task import Task
from jaxsnn.types import PyTree, Variables


def distilled(
    task: Task,
    teacher: Net,
    variables: Variables,
    preprocessing: Preprocessing,
    *,
    share: float = 1.0,
    temperature: float = 4.0,
) -> Task:
    """The task, whose loss in training is in part the distance to a teacher's answers.

    The loss is ``(1 - share) loss + share temperature**2 KL(p || q)``, with ``p`` and ``q`` the
    softmax of the teacher's and the student's logits over ``temperature``. Both see the same
    augmented images. Evaluation is that of the task. Source: Hinton, Vinyals, Dean,
    arXiv:1503.02531, section 2.

    Args:
        task: a classification whose images are augmented by ``preprocessing``.
        teacher: the trained network.
        variables: its tree, which stays as it is; its batch norms take their running statistics.
        preprocessing: that of the task.
        share: of the teacher in the loss, 0 to 1.
        temperature: by which all logits are divided; the higher, the more the small ones count.

    Raises:
        UserError: a share outside 0 to 1, or a temperature that is no number above 0.
    """
    finite_number("share", share, 0, 1)
    finite_number("temperature", temperature, 0, above=True)

    def answers(units: Array) -> Array:
        x = preprocessing.encoding.decode(units)[None]
        state = net_module.initial_state(teacher, variables, x.shape[1])
        return net_module.apply(teacher, variables, x, state).readouts[-1][-1]

    def loss(
        params: PyTree,
        rest: PyTree,
        images: Array,
        labels: Array,
        key: Array,
        train: bool,
        /,
        *,
        axis_name: str | None,
        steps: int | None = None,
        moment: Moment | None = None,
    ) -> tuple[Array, tuple[Array, PyTree]]:
        of_labels = functools.partial(task.loss, axis_name=axis_name, steps=steps, moment=moment)
        losses, (logits, rest) = of_labels(params, rest, images, labels, key, train)
        if train:
            taught = answers(preprocessing.train(images, key, moment)) / temperature
            apart = optax.losses.kl_divergence_with_log_targets(
                jax.nn.log_softmax(logits / temperature), jax.nn.log_softmax(taught)
            )
            losses = (1 - share) * losses + share * temperature**2 * apart
        return losses, (logits, rest)

    return task._replace(loss=loss)
