"""How well a model fits its training set, and how well it generalizes."""


def accuracy(model, dataset, device) -> dict[str, float]:
    """Accuracy and loss on the whole training and test set, in evaluation mode and true float32.

    Returns train_accuracy and test_accuracy (fractions), train_loss and test_loss (mean cross-entropy, in nats),
    generalization_gap = train_accuracy - test_accuracy and test_error = 1 - test_accuracy (Li et al. 2025, section 3).
    """
    from regioncount.training import evaluate

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
