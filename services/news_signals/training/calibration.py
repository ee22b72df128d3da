"""Fits what `engines.embedded.Calibration` holds, on headlines that training never saw. Pure numpy."""

from typing import Any

import numpy as np

from services.news_signals.engines.embedded import Calibration
from services.news_signals.training.metrics import macro_f1

type Values = np.ndarray[Any, Any]

ROUNDS, RATE = 2_000, 0.05
#: A difference of macro-F1 that means nothing on some thousand headlines.
AS_GOOD = 0.006


def probabilities(logits: Values, temperature: float, bias: Values) -> Values:
    """Softmax of ``logits / temperature + bias``, [samples, classes]."""
    scaled = logits / temperature + bias
    weights = np.exp(scaled - scaled.max(1, keepdims=True))
    shares: Values = weights / weights.sum(1, keepdims=True)
    return shares


def fit(logits: Values, labels: Values) -> Calibration:
    """Temperature and bias of the highest likelihood, then the two odds of the best macro-F1.

    `logits` are [samples, classes].
    """
    log_rate, bias = 0.0, np.zeros(3)
    targets = np.eye(3)[labels]
    for _ in range(ROUNDS):
        wrong = probabilities(logits, float(np.exp(-log_rate)), bias) - targets
        log_rate -= RATE * float((wrong * logits).sum(1).mean() * np.exp(log_rate))
        bias = bias - RATE * wrong.mean(0)
    temperature = float(np.exp(-log_rate))
    bias = bias - bias.mean()
    negative_odds, positive_odds = odds(probabilities(logits, temperature, bias), labels)
    return Calibration(
        temperature=round(temperature, 4),
        bias=(round(float(bias[0]), 4), round(float(bias[1]), 4), round(float(bias[2]), 4)),
        negative_odds=negative_odds,
        positive_odds=positive_odds,
    )


def odds(shares: Values, labels: Values) -> tuple[float, float]:
    """How likely against neutral a negative and a positive signal must be.

    Of the pairs of a grid whose macro-F1 is all but the best, the one nearest to even odds: the peak itself
    is luck, and even odds are right where the probabilities are.
    """
    grid = np.exp(np.linspace(np.log(0.4), np.log(2.5), 27))
    table = np.array([[macro_f1(labels, told(shares, low, high)) for high in grid] for low in grid])
    distance = np.log(grid)[:, None] ** 2 + np.log(grid)[None, :] ** 2
    allowed = np.where(table >= table.max() - AS_GOOD, distance, np.inf)
    low, high = np.unravel_index(int(np.argmin(allowed)), table.shape)
    return round(float(grid[low]), 4), round(float(grid[high]), 4)


def told(shares: Values, negative_odds: float, positive_odds: float) -> Values:
    """The class that probabilities [samples, classes] come to, [samples]."""
    positive = shares[:, 2] >= shares[:, 0]
    stronger = np.where(positive, shares[:, 2] / positive_odds, shares[:, 0] / negative_odds)
    classes: Values = np.where(stronger >= shares[:, 1], np.where(positive, 2, 0), 1)
    return classes
