"""The embedded engine: a small ONNX model that ships with the service and runs on one CPU thread, offline.

`services/news_signals/model/CARD.md` says what it was trained on, how well it does and where it fails.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import exp
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from services.common.errors import SettingsError
from services.news_signals.engines.contract import EngineContext, Opinion, Story
from services.news_signals.engines.masking import masked_text

NAME = "embedded"
MODEL_DIR = Path(__file__).resolve().parent.parent / "model"
#: Repeated deliveries and copied headlines are common; a cached text costs a microsecond.
CACHED_TEXTS = 20_000


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How logits become probabilities and a signal; fitted on crypto headlines that training never saw.

    Probabilities are the softmax of ``logits / temperature + bias``. The signal is the likelier of
    positive and negative where it is at least `positive_odds` or `negative_odds` times as likely as
    neutral, else 0.
    """

    temperature: float
    bias: tuple[float, float, float]
    negative_odds: float
    positive_odds: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``model.json``: what the model files are. `files` maps names to SHA-256 sums."""

    version: str
    max_tokens: int
    calibration: Calibration
    files: Mapping[str, str]


class Model(Protocol):
    """Logits (negative, neutral, positive) of a masked text."""

    def __call__(self, text: str) -> tuple[float, float, float]:
        """Run the network on one text."""


def load_manifest(folder: Path) -> Manifest:
    """``model.json`` of `folder`, with every file that it names checked. Raises `SettingsError`."""
    try:
        manifest = msgspec.json.decode((folder / "model.json").read_bytes(), type=Manifest)
        for name, expected in manifest.files.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise SettingsError(
                    f"{folder / name} is not the file that model.json names (its SHA-256 differs); "
                    "take both from one version, or train anew with `make train-sentiment`"
                )
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"cannot read the sentiment model in {folder}: {error}") from error
    return manifest


def load_model(folder: Path, manifest: Manifest) -> Model:
    """The network of `folder` on one thread. Raises `SettingsError` when its extra is not installed."""
    try:
        import numpy as np
        import onnxruntime
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SettingsError(
            f"the embedded engine needs {error.name}: pip install 'crypto-price-predictor[news_signals]'"
        ) from error
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(manifest.max_tokens)
    options = onnxruntime.SessionOptions()
    # One headline is too small to share among threads, and the other cores belong to other services.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def run(text: str) -> tuple[float, float, float]:
        ids = np.array(tokenizer.encode(text).ids, np.int64)
        negative, neutral, positive = session.run(None, {"input_ids": ids})[0].tolist()
        return negative, neutral, positive

    return run


class EmbeddedEngine:
    """Scores texts one by one: the same text gives the same opinion, whatever stands beside it."""

    def __init__(self, model: Model, manifest: Manifest) -> None:
        calibration, version = manifest.calibration, manifest.version

        @lru_cache(maxsize=CACHED_TEXTS)
        def opinion(text: str) -> Opinion:
            return opine(model(text), calibration, version)

        self._opinion = opinion

    def score(self, stories: Sequence[Story]) -> list[tuple[Opinion, ...]]:
        """For each story one opinion per coin, in the order of ``story.coins``."""
        return [tuple(self._opinion(masked_text(story, coin)) for coin in story.coins) for story in stories]

    def close(self) -> None:
        """Nothing to let go of."""


def opine(logits: tuple[float, float, float], calibration: Calibration, version: str) -> Opinion:
    """Probabilities and signal of logits (negative, neutral, positive)."""
    scaled = [
        logit / calibration.temperature + bias for logit, bias in zip(logits, calibration.bias, strict=True)
    ]
    top = max(scaled)
    weights = [exp(value - top) for value in scaled]
    p_neg, p_neu, p_pos = (weight / sum(weights) for weight in weights)
    signal: Literal[-1, 0, 1] = 0
    if p_pos >= p_neg:
        if p_pos >= calibration.positive_odds * p_neu:
            signal = 1
    elif p_neg >= calibration.negative_odds * p_neu:
        signal = -1
    return Opinion(p_pos, p_neu, p_neg, signal, NAME, version)


def build(context: EngineContext) -> EmbeddedEngine:
    """The engine on the model that ships with the service, or the one that the settings name."""
    folder = getattr(context.settings, "model_dir", None) or MODEL_DIR
    manifest = load_manifest(folder)
    return EmbeddedEngine(load_model(folder, manifest), manifest)
