"""How many examples a compiled call has, and how many devices share them."""

import jax

from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.systems.settings.base import Common


def devices(config: Common, batch_size: int) -> int:
    """Devices of all processes to share a batch between: as asked, else as many as divide it.

    Raises:
        UserError: the processes cannot share the batch equally.
    """
    if config.devices:
        return config.devices
    number, most = processes.count(), jax.device_count()
    fitting = [n for n in range(number, most + 1, number) if batch_size % n == 0]
    if not fitting:
        raise UserError(
            f"--batch-size {batch_size} is no multiple of the {number} processes; give one that is"
        )
    return max(fitting)


def batch_within(examples: int, most: int, devices: int | None) -> int:
    """Examples per compiled call of a simulation, which the devices share equally.

    Args:
        examples: all of them.
        most: that fit into a call.
        devices: as asked for; None: one.

    >>> batch_within(10_000, 100, 8), batch_within(12, 100, 8), batch_within(12, 4, 8)
    (96, 16, 8)
    """
    share = devices or 1
    return min(max(most // share, 1), -(-examples // share)) * share


def own_devices(config: Common, batch_size: int) -> int:
    """Devices of this process to share a batch of its own between, in a simulation.

    Raises:
        UserError: as :func:`jaxsnn.io.processes.devices_per_process`.
    """
    if config.devices:
        return processes.devices_per_process(config.devices)
    here = jax.local_device_count()
    return max(n for n in range(1, here + 1) if batch_size % n == 0)
