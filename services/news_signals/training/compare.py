"""What simpler engines reach on the same samples: lexicons, TF-IDF, the frozen encoder.

Runs in the training environment (`make compare-sentiment`). Lexicons need no training; the others are trained
on the same samples as the shipped model.
"""

import argparse
import json
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from encoder import Encoder, load_encoder
from metrics import accuracy, auc, macro_f1
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from tokenizers import Tokenizer
from train import DATASETS, Classifier, base_folder, make_tokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

#: VADER's own cut for a neutral text.
NEUTRAL = 0.05
CHUNK = 64
_ENTRY = re.compile(r"\w+\[['\"](.+?)['\"]\]\s*=\s*(-?[\d.]+)")


class Lexicon:
    """VADER, with the lexicons of finvader added or not."""

    def __init__(self, finance: bool) -> None:
        self._analyzer = SentimentIntensityAnalyzer()
        if finance:
            # The package downloads data when it is imported, so its word lists are read as text.
            spec = find_spec("finvader")
            assert spec is not None
            assert spec.origin is not None
            folder = Path(spec.origin).parent
            for name, factor in (("SentiBignomics.py", 0.1), ("Henry.py", 1.0)):
                entries = _ENTRY.findall((folder / name).read_text(errors="replace"))
                self._analyzer.lexicon.update({word: float(value) * factor for word, value in entries})

    def __call__(self, texts: list[str]) -> tuple[Any, Any]:
        """Scores and classes, [texts] each."""
        scores = np.array([self._analyzer.polarity_scores(text)["compound"] for text in texts])
        return scores, np.where(scores >= NEUTRAL, 2, np.where(scores <= -NEUTRAL, 0, 1))


class Fitted:
    """Features of texts and a logistic regression on them."""

    def __init__(self, features: Any, texts: list[str], labels: list[int]) -> None:
        self._features = features
        self._regression = LogisticRegression(C=4, max_iter=500).fit(features(texts), labels)

    def __call__(self, texts: list[str]) -> tuple[Any, Any]:
        """Scores and classes, [texts] each."""
        shares = self._regression.predict_proba(self._features(texts))
        return shares[:, 2] - shares[:, 0], shares.argmax(1)


def tf_idf(texts: list[str]) -> Any:
    """Words and pairs of words, and pieces of two to five letters."""
    union = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3),
    )
    return make_pipeline(union).fit(texts).transform


def frozen() -> Any:
    """Vectors of the encoder as it came."""
    base = base_folder()
    encoder = load_encoder(base / "model.safetensors", (1, 2))
    encoder.fold_placeholders()
    encoder.eval()
    tokenizer: Tokenizer = make_tokenizer(base)
    tokenizer.enable_padding()

    def vectors(texts: list[str]) -> Any:
        parts = []
        with torch.no_grad():
            for at in range(0, len(texts), CHUNK):
                encoded = tokenizer.encode_batch(texts[at : at + CHUNK])
                ids = torch.tensor([one.ids for one in encoded])
                mask = torch.tensor([one.attention_mask for one in encoded])
                parts.append(torch.nn.functional.normalize(encoder(ids, mask)).numpy())
        return np.concatenate(parts) * 10

    return vectors


class FineTuned:
    """The shipped model in float, each data set judged by the head that learnt its labels, uncalibrated."""

    def __init__(self, weights: Path, dataset: str) -> None:
        state = torch.load(weights)
        layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers."))
        self._model = Classifier(Encoder((1, 2), layers))
        self._model.load_state_dict(state)
        self._model.eval()
        self._head = DATASETS.index(dataset)
        self._tokenizer: Tokenizer = make_tokenizer(base_folder())

    def __call__(self, texts: list[str]) -> tuple[Any, Any]:
        """Scores and classes, [texts] each."""
        rows = []
        with torch.no_grad():
            for text in texts:
                ids = torch.tensor([self._tokenizer.encode(text).ids])
                rows.append(self._model(ids, torch.ones_like(ids))[self._head, 0].softmax(-1).numpy())
        shares = np.array(rows)
        return shares[:, 2] - shares[:, 0], shares.argmax(1)


def main() -> int:
    """Print one line for each engine and test set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="student.pt of a training run, for its other heads")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(3)
    samples = [json.loads(line) for line in asked.samples.open()]
    train = [s for s in samples if s["split"] == "train"]
    texts, labels = [s["text"] for s in train], [s["label"] for s in train]
    test = [s for s in samples if s["split"] == "test"]
    sets = {
        "SEntFiN, per entity": [s for s in test if s["dataset"] == "sentfin" and s["entity"]],
        "TFNS validation": [s for s in test if s["dataset"] == "tfns"],
        "crypto natural, headline": [s for s in test if s["file"] == "natural_test" and not s["entity"]],
        "crypto hard, per coin": [s for s in test if s["file"] == "hard_test" and s["entity"]],
    }
    engines: dict[str, Any] = {
        "VADER": lambda: Lexicon(finance=False),
        "VADER + finance lexicons": lambda: Lexicon(finance=True),
        "TF-IDF + LR": lambda: Fitted(tf_idf(texts), texts, labels),
        "MiniLM frozen + LR": lambda: Fitted(frozen(), texts, labels),
    }
    if asked.weights:
        engines["MiniLM fine-tuned"] = lambda: FineTuned(asked.weights, "crypto")
    for name, build in engines.items():
        engine = build()
        single = [s["text"] for s in sets["crypto natural, headline"]][:200]
        began = time.perf_counter()
        for text in single:
            engine([text])
        rate = len(single) / (time.perf_counter() - began)
        print(f"{name}: {rate:,.0f} headlines/s, one at a time", flush=True)
        for row, chosen in sets.items():
            if asked.weights and name == "MiniLM fine-tuned":
                engine = FineTuned(asked.weights, chosen[0]["dataset"])
            truth = np.array([s["label"] for s in chosen])
            scores, told = engine([s["text"] for s in chosen])
            figures = (accuracy(truth, told), macro_f1(truth, told), auc(truth, scores))
            print(f"  {row:28}" + "".join(f"{figure:9.3f}" for figure in figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
