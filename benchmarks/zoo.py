"""Train the models of the benchmarks: every network of the paper, and MobileNetV2, at reduced width.

    python benchmarks/zoo.py [--data DIR]

Each network is stored half trained and trained. The models are regioncount runs, so they are trained once and then reused.
"""

import argparse
from collections.abc import Iterator

from torch import nn

from regioncount import data
from regioncount.config import parse_run
from regioncount.models.networks import build_for
from regioncount.runs import runner
from regioncount.runs.measurements import measured_values
from regioncount.runs.prepared import PreparedRun

WIDTHS = {
    "resnet18": 16,
    "resnet34": 12,
    "vgg19": 16,
    "mobilenet": 16,
    "senet18": 16,
    "shufflenetv2": 24,
    "efficientnet_b0": 16,
    "regnetx_200mf": 24,
    "simple_dla": 8,
    "mobilenetv2": 16,
}


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", default="data/cifar10-jpeg", help="a folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--epochs", type=int, default=12, help="training epochs; a half trained model has half of them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--results", default="results/benchmarks", help="directory of the trained models")
    return parser


def prepare(network: str, width: int, options: argparse.Namespace, seed: int = 0) -> PreparedRun:
    """Prepare the training of a network: SGD on 5,000 images with a cosine schedule."""
    return runner.prepare(
        parse_run(
            {
                "dataset": {
                    "name": "image_folder",
                    "root": options.data,
                    "title": "CIFAR-10 (JPEG)",
                    "train_size": 5000,
                    "test_size": 2000,
                },
                "model": {"name": network, "width": width},
                "optimizer": {
                    "name": "sgd",
                    "learning_rate": 0.05,
                    "momentum": 0.9,
                    "nesterov": False,
                    "weight_decay": 1e-5,
                },
                "schedule": {"name": "cosine"},
                "batch_size": 64,
                "epochs": options.epochs,
                "seed": seed,
                "snapshots": {"epochs": [options.epochs // 2], "keep": True},
                "measures": ["accuracy"],
                "device": options.device,
                "results": options.results,
            }
        )
    )


def dataset(options: argparse.Namespace) -> data.Dataset:
    """Return the data set on which all networks are trained."""
    return prepare("resnet18", WIDTHS["resnet18"], options).dataset


def stages(network: str, width: int, options: argparse.Namespace) -> Iterator[tuple[int, nn.Module, data.Dataset, float]]:
    """Yield a network half trained and trained: the epoch, the model, its data and its train accuracy."""
    prepared = prepare(network, width, options)
    run = runner.run_or_resume(prepared)
    for epoch in (options.epochs // 2, options.epochs):
        model = build_for(prepared.config.model, prepared.dataset)
        model.load_state_dict(run.weights(epoch if epoch < options.epochs else None))
        accuracy = measured_values(run, prepared.config, prepared.dataset, epoch)["train_accuracy"]
        yield epoch, model.eval(), prepared.dataset, accuracy


def main() -> None:
    options = make_parser(__doc__).parse_args()
    for network, width in WIDTHS.items():
        for epoch, _, _, accuracy in stages(network, width, options):
            print(f"{network} of width {width} at epoch {epoch}: train accuracy {100 * accuracy:.1f} %", flush=True)


if __name__ == "__main__":
    main()
