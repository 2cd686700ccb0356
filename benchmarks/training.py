"""Compare the images per second in training between regioncount and the plain version, in one process.

    python benchmarks/training.py [--networks resnet18 mobilenet ...] [--images 1024] [--data DIR]

The plain version runs before and after regioncount, so that a drift in the machine's speed favours neither. The first epoch
of each training is not timed. On a GPU, regioncount also trains without CUDA graphs, kernel by kernel.
"""

import time
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import plain
import torch
import zoo

from regioncount import data, training
from regioncount.config import parse_run
from regioncount.models.networks import build_for
from regioncount.training import steps
from regioncount.training.hardware import MIN_COMPILED_WORK

NETWORKS = ("resnet18", "mobilenet", "shufflenetv2", "efficientnet_b0")


def plain_rate(network: str, dataset: data.Dataset, options, device: torch.device) -> float:
    """Return the images per second of the plain version over the second of two epochs."""
    model = build_for({"name": network}, dataset).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = dataset.train.images.permute(0, 2, 3, 1).contiguous().numpy()
    batches = plain.loader(images, dataset.train.labels.tolist(), dataset.mean, dataset.std, options.batch_size)
    for _ in range(2):
        start = time.perf_counter()
        plain.train_epoch(model, batches, optimizer, device)
        seconds = time.perf_counter() - start
    return len(images) / seconds


def suite_rate(network: str, dataset: data.Dataset, options, device: torch.device, graphs: bool = True) -> float:
    """Return the images per second of regioncount over the second of two epochs, with or without CUDA graphs."""
    config = parse_run(
        {
            "model": {"name": network},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
            "schedule": {"name": "constant"},
            "batch_size": options.batch_size,
            "epochs": 2,
        }
    )
    model = build_for(config.model, dataset)
    precision = training.choose_precision("auto", device)
    compiled = training.choose_compilation(options.compile or "auto", device, MIN_COMPILED_WORK)  # as for a long run
    with nullcontext() if graphs else patch.object(steps, "capture_cuda_graph", lambda step: step):
        history = training.fit(model, dataset.to(device), config, device=device, precision=precision, compiled=compiled)
    return len(dataset.train) / history[-1]["seconds"]


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--compile", action="store_true", help="compile the training steps, also on a GPU")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=256)
    options = parser.parse_args()
    device = training.choose_device(options.device)
    torch.backends.cudnn.allow_tf32 = False
    dataset = zoo.dataset(options)
    dataset = replace(dataset, train=dataset.train.select(torch.arange(options.images) % len(dataset.train)))
    print("| network | plain, images/s | kernel by kernel | regioncount, images/s | ratio |\n|---|---|---|---|---|")
    for network in options.networks:
        before = plain_rate(network, dataset, options, device)
        by_kernel = f"{suite_rate(network, dataset, options, device, graphs=False):.0f}" if device.type == "cuda" else ""
        rate = suite_rate(network, dataset, options, device)
        after = plain_rate(network, dataset, options, device)
        plain_mean = 2 / (1 / before + 1 / after)
        print(f"| {network} | {plain_mean:.0f} | {by_kernel} | {rate:.0f} | {rate / plain_mean:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
