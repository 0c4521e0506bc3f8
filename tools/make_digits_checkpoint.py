"""Write experiments/digits_cnn.pt: a small CNN for the digits, trained and saved by PyTorch.

It stands for somebody's network in experiments/bring_your_own.py, in a notebook and in tests, so it
knows nothing of this library: batch norm, biases before it, ReLU, average pools, ``torch.save``.
Half precision, so that it has a few kB. Needs the extra torch, and about a minute.

    python tools/make_digits_checkpoint.py experiments/digits_cnn.pt
"""

import sys

import numpy as np
import torch
from torch import nn

from jaxsnn.data import load

EPOCHS, BATCH = 40, 64


def network() -> nn.Sequential:
    """8C3p1-AP2-16C3p1-AP2-16C3p1, a global average, ten classes."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 8), (8, 16), (16, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.AvgPool2d(2)] if outputs != inputs else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey values / 255 as [N, 1, H, W], and labels."""
    turned = np.ascontiguousarray(np.moveaxis(images, -1, 1), np.float32) / 255
    return torch.from_numpy(turned), torch.from_numpy(labels.astype(np.int64))


def main() -> None:
    """Train, measure in half precision, write."""
    torch.manual_seed(0)
    (target,) = sys.argv[1:]
    data = load("digits")
    images, labels = tensors(data.train_images, data.train_labels)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    updates = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=updates)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for first in range(0, len(images) - BATCH + 1, BATCH):
            rows = order[first : first + BATCH]
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    state = model.state_dict()
    state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    model.load_state_dict(state)
    model.eval()
    images, labels = tensors(data.test_images, data.test_labels)
    with torch.no_grad():
        hits = int((model(images).argmax(1) == labels).sum())
    torch.save(state, target)
    print(f"{hits} of {len(labels)} test images, {hits / len(labels):.2%}")


if __name__ == "__main__":
    main()
