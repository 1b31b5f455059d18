"""The table of what a network says of each evaluated image: a mistake can be found again."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from s11_fastai.interpret import Predictions

COLUMNS = ("index", "actual", "predicted", "probability", "loss")


def prediction_rows(predictions: Predictions, indices: np.ndarray, names: Sequence[str]) -> str:
    """A CSV with a row for each image, in the order of the predictions.

    `index` is the image's, as `learn.predict` takes it; `actual` and `predicted` are names of
    classes; `probability` is that of the predicted class, `loss` is in nats. Numbers are float32,
    with as many digits as tell them apart.
    """
    guesses = predictions.classes
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for index, actual, guess, probability, loss in zip(
        indices.tolist(),
        predictions.labels,
        guesses,
        predictions.probability(guesses),
        predictions.losses,
        strict=True,
    ):
        writer.writerow([index, names[actual], names[guess], str(probability), str(loss)])
    return table.getvalue()
