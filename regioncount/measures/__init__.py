"""Measures of a trained model besides its region counts, in a registry by name.

A measure is a function (model, dataset, device) -> {column: value}; the model is on the device, and left as it was.
"""

from regioncount.measures.performance import accuracy

MEASURES = {"accuracy": accuracy}
