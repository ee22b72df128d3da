"""How well labels are told: accuracy, macro-F1, AUC. Labels are 0 negative, 1 neutral, 2 positive. Pure."""

from typing import Any

import numpy as np

# Arrays of labels and scores, [samples]. The training environment's Python may not know `type` statements.
Values = np.ndarray[Any, Any]


def accuracy(labels: Values, predicted: Values) -> float:
    """Share of samples whose label is told."""
    return float((labels == predicted).mean())


def macro_f1(labels: Values, predicted: Values) -> float:
    """Mean over the three classes of the harmonic mean of precision and recall."""
    scores = []
    for label in range(3):
        hits = ((labels == label) & (predicted == label)).sum()
        named = (labels == label).sum() + (predicted == label).sum()
        scores.append(2 * hits / named if named else 0.0)
    return float(np.mean(scores))


def auc(labels: Values, scores: Values) -> float:
    """Probability that a positive sample scores above a negative one; neutral ones are left out."""
    positive, negative = scores[labels == 2], scores[labels == 0]
    below = np.searchsorted(np.sort(negative), positive, "left")
    up_to = np.searchsorted(np.sort(negative), positive, "right")
    return float((below + up_to).sum() / 2 / (len(positive) * len(negative)))
