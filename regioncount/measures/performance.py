"""How well a model fits its training set, and how well it generalizes."""

import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from regioncount.regions.evaluation import evaluation_batch, evaluation_mode, fast_layout, true_float32


def accuracy(model: nn.Module, dataset, device: torch.device) -> dict[str, float]:
    """Accuracy and loss on the whole training and test set, in evaluation mode and true float32.

    Returns train_accuracy and test_accuracy (fractions), train_loss and test_loss (mean cross-entropy, in nats),
    generalization_gap = train_accuracy - test_accuracy and test_error = 1 - test_accuracy (Li et al. 2025, section 3).
    """
    train_loss, train_accuracy = evaluate(model, dataset, dataset.train, device)
    test_loss, test_accuracy = evaluate(model, dataset, dataset.test, device)
    return {
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "train_loss": train_loss,
        "test_loss": test_loss,
        "generalization_gap": train_accuracy - test_accuracy,
        "test_error": 1 - test_accuracy,
    }


def evaluate(model: nn.Module, dataset, split, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy (in nats) and accuracy (a fraction) on a whole split, in evaluation mode and true float32."""
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with torch.no_grad(), evaluation_mode(model), true_float32():
        for images, labels in split.batches(evaluation_batch(device, math.prod(split.image_shape))):
            logits = model(fast_layout(dataset.normalize(images)))
            loss += cross_entropy(logits, labels, reduction="sum").double()
            correct += (logits.argmax(dim=1) == labels).sum()
    return loss.item() / len(split), correct.item() / len(split)
