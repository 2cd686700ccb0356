"""The configuration of a small run, as plain data."""

PLAIN = {
    "dataset": {"name": "digits"},
    "model": {"name": "mlp"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "schedule": {"name": "constant"},
    "batch_size": 32,
    "epochs": 2,
    "regions": {"line": {}},
}
