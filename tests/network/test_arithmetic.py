"""Fast arithmetic is for training alone, and every gradient of it is that of a slow loop."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import methods, neurons
from jaxsnn.arch.layers import Conv
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import parse, plan
from jaxsnn.conversion.convert import convert
from jaxsnn.equality.certify import certify
from jaxsnn.network import arithmetic
from jaxsnn.network import synapse as synapse_module
from jaxsnn.network.arithmetic import ONEDNN_CONVOLUTION, Arithmetic, training_arithmetic
from jaxsnn.network.net import Net, init_variables
from jaxsnn.network.per_site import hidden
from jaxsnn.training.gradients import Plan
from jaxsnn.training.one_pass import classification
from jaxsnn.training.update import programs

SHAPES = [
    (Conv(64, 3, padding=1), (12, 12, 16), 4),  # a map large enough for products tap by tap
    (Conv(64, 3, padding=1), (6, 6, 64), 4),  # a small one
    (Conv(64, 3, stride=2, padding=1), (12, 12, 16), 3),
    (Conv(64, 3), (12, 10, 16), 2),
    (Conv(64, 2, stride=2), (4, 4, 64), 2),  # windows that do not overlap
    (Conv(8, 3, padding=1), (6, 6, 8), 2),  # a narrow one, in float32
]


def loops(x, kernel, gradient, site):
    """Output and both gradients of a convolution in float64, tap by tap."""
    padded = np.pad(x.astype(np.float64), ((0, 0), *site.padding, (0, 0)))
    kernel, gradient = kernel.astype(np.float64), gradient.astype(np.float64)
    rows, columns = site.drive_shape[:2]
    out, to_x, to_kernel = 0, np.zeros_like(padded), np.zeros_like(kernel)
    for i, j in itertools.product(*map(range, site.window)):
        place = (
            slice(None),
            slice(i, i + (rows - 1) * site.strides[0] + 1, site.strides[0]),
            slice(j, j + (columns - 1) * site.strides[1] + 1, site.strides[1]),
        )
        out = out + padded[place] @ kernel[i, j]
        to_x[place] += gradient @ kernel[i, j].T
        to_kernel[i, j] = np.einsum("nhwc,nhwo->co", padded[place], gradient)
    (top, _), (left, _) = site.padding
    return out, to_x[:, top : top + x.shape[1], left : left + x.shape[2]], to_kernel


@pytest.mark.parametrize(
    ("kind", "error"), [(Arithmetic.FAST_FLOAT32, 1e-4), (Arithmetic.FAST_BFLOAT16, 0.03)]
)
@pytest.mark.parametrize(("spec", "shape", "images"), SHAPES)
def test_output_and_gradients_are_those_of_a_slow_loop(spec, shape, images, kind, error):
    site = plan(Arch((spec,), input_shape=shape))[0]
    rng = np.random.default_rng(0)
    x, kernel, gradient = (
        np.asarray(jnp.asarray(rng.normal(size=size), jnp.bfloat16), np.float32)
        for size in ((images, *shape), site.kernel_shape, (images, *site.drive_shape))
    )

    @jax.jit
    def ours(x, kernel):
        def synapse(x, k):
            return synapse_module.synapse(x, k, site, "float32", arithmetic=kind).astype(
                jnp.float32
            )

        out, pull = jax.vjp(synapse, x, kernel)
        return (out, *pull(jnp.asarray(gradient)))

    for mine, expected in zip(ours(x, kernel), loops(x, kernel, gradient, site), strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_allclose(mine, expected, atol=error * np.abs(expected).max())


def test_what_is_looked_at_decides(monkeypatch):
    monkeypatch.setattr(arithmetic, "onednn_convolves", lambda: False)
    assert training_arithmetic("auto") is Arithmetic.FAST_FLOAT32
    with pytest.raises(ValueError, match=r"--compute bfloat16: this XLA.*possible here: float32"):
        training_arithmetic("bfloat16")
    monkeypatch.setattr(arithmetic, "onednn_convolves", lambda: True)
    assert training_arithmetic("auto") is Arithmetic.FAST_BFLOAT16
    assert training_arithmetic("bfloat16") is Arithmetic.FAST_BFLOAT16
    assert training_arithmetic("float32") is Arithmetic.FAST_FLOAT32


def small_net(kind):
    arch = parse("64C3same-P2-64C3same-24", input_shape=(12, 12, 16), pool="conv")
    return Net(arch, hidden(neurons.quantised_relu(1, None)), arithmetic=kind)


def test_training_in_bfloat16_calls_onednn_forwards_and_for_both_gradients():
    if not arithmetic.onednn_convolves():
        pytest.skip("this XLA has no oneDNN convolutions")
    task = classification(small_net(Arithmetic.FAST_BFLOAT16))
    import optax

    plan_ = Plan(8, 1, 1, 1)
    initial, update = programs(task, optax.sgd(0.1), plan_)
    state = initial(jax.random.key(0))
    images = np.zeros((8, 12, 12, 16), np.uint8)
    constants = (jnp.arange(8), images, jnp.zeros(8, jnp.int32), jax.random.key(1))
    text = update.lower(state, *constants, count=1, steps=None).compile().as_text()
    # Two convolutions, each forwards and for its input's gradient; the first input has none.
    assert text.count(f'custom_call_target="{ONEDNN_CONVOLUTION}') >= 3


def compiled_texts(snn, variables, images, monkeypatch):
    """The compiled text of every program that a call compiles."""
    from jax._src import compiler

    texts, usual = [], compiler.compile_or_get_cached  # from a cache of programs, too

    def kept(*arguments, **options):
        program = usual(*arguments, **options)
        texts.extend(module.to_string() for module in program.hlo_modules())
        return program

    monkeypatch.setattr(compiler, "compile_or_get_cached", kept)
    jax.clear_caches()
    certify(snn, variables, images, steps=40, settle=True)
    return texts


def test_a_fast_program_says_so():
    """The words that the next test looks for."""
    words = {Arithmetic.FAST_FLOAT32: "winograd"}
    if arithmetic.onednn_convolves():
        words[Arithmetic.FAST_BFLOAT16] = "__onednn"
    site = plan(Arch((Conv(64, 3, padding=1),), input_shape=(12, 12, 64)))[0]
    shapes = [
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, *site.in_shape), site.kernel_shape)
    ]
    for kind, word in words.items():
        program = jax.jit(
            functools.partial(
                synapse_module.synapse, site=site, accumulator="float32", arithmetic=kind
            ),
            compiler_options=arithmetic.compiler_options(kind),
        )
        assert word in program.lower(*shapes).compile().as_text()


def test_no_exact_program_holds_a_fast_path(monkeypatch):
    bfloat16 = arithmetic.onednn_convolves()
    net = small_net(Arithmetic.FAST_BFLOAT16 if bfloat16 else Arithmetic.FAST_FLOAT32)
    variables = init_variables(net, jax.random.key(0))
    snn = convert(variables, net.arch, methods.negative_spikes(k=1, bound=None))
    for network in (snn.net, snn.quantised_ann, snn.float_ann):
        assert not network.arithmetic.fast
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 16), dtype=np.uint8)
    texts = compiled_texts(snn, variables, images, monkeypatch)
    assert sum("convolution" in text or "dot" in text for text in texts) >= 1
    assert not [text for text in texts if "__onednn" in text]
    assert not [text for text in texts if "winograd" in text]
