"""Names for what JAX, Flax and JSON leave untyped, so that a signature says which of them it takes.

A tree of arrays has no type of its own in JAX: its parts are found by ``jax.tree``, its shape is
known when a program is traced. What a file holds has one only once it has been checked
(:mod:`jaxsnn.io.typed`).
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

PyTree: TypeAlias = Any
"""Arrays, or shapes of arrays, in nested dictionaries, tuples and dataclasses."""

Tree: TypeAlias = dict[str, PyTree]
"""A tree whose first level is a dictionary: collections by name, sites by name."""

Variables: TypeAlias = Mapping[str, PyTree]
"""A network's collections by name: ``params``, ``batch_stats``, ``fixed``."""

Json: TypeAlias = Any
"""What ``json.loads`` returns: None, a truth value, a number, a text, a list or a dictionary."""

JsonObject: TypeAlias = dict[str, Json]
"""An object of JSON as it was read, unchecked, or as it is written."""

Untyped: TypeAlias = Any
"""An object of a library without types: a module of PyTorch, a node of HDF5, a builder of tfds."""
