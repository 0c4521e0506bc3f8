"""Somebody's trained network as a certified spiking one: ResNet-20, a CNN for digits, and others.

Nothing is trained: weights are read without their framework, clips and bounds calibrated, every
method tried, the best kept with its certificate. It is ``python -m jaxsnn convert`` with the flags
of four networks filled in; every other flag may follow.

    python experiments/bring_your_own.py                    # digits, under 2 minutes, no files
    python experiments/bring_your_own.py resnet20 --limit-test 1000
    python experiments/bring_your_own.py mnist_cnn
    python experiments/bring_your_own.py mnist_params

- ``resnet20`` is akamaster's ResNet-20 for CIFAR-10 (github.com/akamaster/pytorch_resnet_cifar10,
  pretrained_models/resnet20-12fca82f.th; 91.74 % here, published as 91.73 %);
- ``mnist_cnn`` R4hulR's CNN for MNIST (github.com/R4hulR/mnistCNN-pytorch, mnist_cnn.pt; 98.59 %);
- ``mnist_params`` the CNN of sinabs' tests (github.com/synsense/sinabs, mnist_params.pt; 97.88 %).

Put the file into the folder models of $JAXSNN_DATA, or name it with --weights. The weights of
``digits`` lie beside this script, written by tools/make_digits_checkpoint.py.
"""

import os
import sys
from pathlib import Path

from jaxsnn.systems.bring_your_own.system import main as convert

MODELS = Path(os.environ.get("JAXSNN_DATA") or "data") / "models"
RESNET20 = "-".join(
    [
        "16C3p1",
        *3 * ["[16C3p1-16C3p1]+identity"],
        "[32C3s2p1-32C3p1]+padded",
        *2 * ["[32C3p1-32C3p1]+identity"],
        "[64C3s2p1-64C3p1]+padded",
        *2 * ["[64C3p1-64C3p1]+identity"],
    ]
)
NETWORKS = {
    "digits": [
        *(f"--weights={Path(__file__).with_name('digits_cnn.pt')}", "--data=digits"),
        *("--arch=8C3p1-AP2-16C3p1-AP2-16C3p1", "--head-pool"),
    ],
    "resnet20": [
        *(f"--weights={MODELS / 'resnet20-12fca82f.th'}", "--data=cifar10", f"--arch={RESNET20}"),
        *("--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225", "--head-pool"),
    ],
    "mnist_cnn": [
        *(f"--weights={MODELS / 'mnist_cnn.pt'}", "--data=mnist"),
        *("--arch=6C3-MP2-16C3-MP2-120-84", "--k=4"),  # 3 lose 0.15 points
    ],
    "mnist_params": [
        *(f"--weights={MODELS / 'mnist_params.pt'}", "--data=mnist"),
        "--arch=20C5x-AP2-32C5x-AP2-128C3x-AP2-500x",
    ],
}


def main() -> int:
    """Convert the network that the first word names, digits without one."""
    words = sys.argv[1:]
    name = words.pop(0) if words and words[0] in NETWORKS else "digits"
    return convert([*NETWORKS[name], f"--out=runs/bring_your_own/{name}", *words])


if __name__ == "__main__":
    sys.exit(main())
