"""The distance to a teacher's answers, computed again from the paper's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Net, hidden, init_variables, parse
from jaxsnn.errors import UserError
from jaxsnn.inputs import preprocess
from jaxsnn.network import net as net_module
from jaxsnn.neurons import quantised_relu, relu
from jaxsnn.training import classification, distilled

ARCH = parse("4C3", input_shape=(6, 6, 1), classes=3, norm=False)
AUGMENTED = preprocess.normalised((0.0,), (1.0,), 6, padding=2)
SHARE, TEMPERATURE = 0.7, 3.0


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def logits_of(net, variables, units):
    x = AUGMENTED.encoding.decode(units)
    return np.asarray(net_module.forward(net, variables, x).readouts[-1][0], np.float64)


@pytest.fixture(scope="module")
def setting():
    """Student, teacher, their tasks and a batch."""
    student, teacher = Net(ARCH, hidden(quantised_relu(1))), Net(ARCH, hidden(relu()))
    tree, other = (
        init_variables(net, jax.random.key(i)) for i, net in enumerate([student, teacher])
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 1), dtype=np.uint8)
    labels = jnp.asarray([0, 1, 2, 0, 1], jnp.int32)
    return student, tree, teacher, other, jnp.asarray(images), labels


def losses(setting, train, share=SHARE):
    student, tree, teacher, other, images, labels = setting
    task = classification(student, AUGMENTED)
    taught = distilled(task, teacher, other, AUGMENTED, share=share, temperature=TEMPERATURE)
    key = jax.random.key(7)
    both = [
        one.loss(tree["params"], {}, images, labels, key, train, axis_name=None)[0]
        for one in (task, taught)
    ]
    return [np.asarray(one, np.float64) for one in both]


def test_the_loss_is_that_of_the_paper(setting):
    student, tree, teacher, other, images, _ = setting
    units = AUGMENTED.train(images, jax.random.key(7))
    p = softmax(logits_of(teacher, other, units) / TEMPERATURE)
    q = softmax(logits_of(student, tree, units) / TEMPERATURE)
    apart = (p * np.log(p / q)).sum(-1)
    labelled, actual = losses(setting, train=True)
    expected = (1 - SHARE) * labelled + SHARE * TEMPERATURE**2 * apart
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_evaluation_is_that_of_the_labels(setting):
    labelled, actual = losses(setting, train=False)
    np.testing.assert_array_equal(actual, labelled)


def test_the_teacher_has_no_gradient_in_the_student(setting):
    """At its own answers the student stands still."""
    student, tree, _, _, images, labels = setting
    task = classification(student, AUGMENTED)
    itself = distilled(task, student, tree, AUGMENTED, share=1.0)

    def loss(params):
        return itself.loss(params, {}, images, labels, jax.random.key(0), True, axis_name=None)[
            0
        ].sum()

    for leaf in jax.tree.leaves(jax.grad(loss)(tree["params"])):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-4)


@pytest.mark.parametrize("options", [{"share": 1.5}, {"share": -0.1}, {"temperature": 0.0}])
def test_numbers_that_make_no_loss_are_refused(setting, options):
    student, _, teacher, other, *_ = setting
    (name,) = options
    with pytest.raises(UserError, match=f"{name}="):
        distilled(classification(student, AUGMENTED), teacher, other, AUGMENTED, **options)
