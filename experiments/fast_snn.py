"""Fast-SNN: progressive quantisation, signed integrate-and-fire neurons, layer-wise fine-tuning.

Paper: Y. Hu, Q. Zheng, X. Jiang, G. Pan, Fast-SNN: Fast Spiking Neural Network by Converting
Quantized ANN, IEEE TPAMI 45(12), 2023. Claim: 2^b-1 time steps are enough for a network of b bits,
if neurons may take spikes back and the layers are fine-tuned on their spike rates.

    python experiments/fast_snn.py progressive --dataset digits --bit 3   # minutes, no files
    python experiments/fast_snn.py progressive --bit 2                    # MNIST, 32 to 2 bits
    python experiments/fast_snn.py snn --bit 3 --unsigned                 # of a trained network

Results go to runs/fast_snn/<arch>_<bits>bit/, figures over all settings to its figs/.
"""

import sys

from jaxsnn.systems import stages
from jaxsnn.systems.fast_snn import FastSnn
from jaxsnn.systems.settings import FastSnn as Settings


def main() -> int:
    """Run the stage that the command line asks for."""
    return stages.main(FastSnn, Settings, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
