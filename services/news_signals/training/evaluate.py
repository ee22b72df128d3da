"""`python -m services.news_signals.training.evaluate`: how well the engine does, and how fast.

``--calibrate`` first fits the calibration on the calibration samples and writes ``model.json``.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from services.news_signals.engines.embedded import (
    MODEL_DIR,
    Calibration,
    Manifest,
    Model,
    load_manifest,
    load_model,
    opine,
)
from services.news_signals.training import calibration
from services.news_signals.training.datasets import Sample
from services.news_signals.training.metrics import accuracy, auc, macro_f1

FILES = ("model.onnx", "tokenizer.json")
MAX_TOKENS = 64
NO_CALIBRATION = Calibration(1.0, (0.0, 0.0, 0.0), 1.0, 1.0)


def test_sets(samples: list[Sample]) -> dict[str, list[Sample]]:
    """The samples to measure on, by the name of their row."""
    test = [sample for sample in samples if sample.split == "test"]
    crypto = [sample for sample in test if sample.dataset == "crypto"]
    hard = [sample for sample in crypto if sample.file == "hard_test" and sample.entity]
    sets = {
        "SEntFiN, per entity": [s for s in test if s.dataset == "sentfin" and s.entity],
        "SEntFiN, several entities": [
            s for s in test if s.dataset == "sentfin" and s.entity and s.entities > 1
        ],
        "TFNS validation": [s for s in test if s.dataset == "tfns"],
        "crypto natural, headline": [s for s in crypto if s.file == "natural_test" and not s.entity],
        "crypto natural, per coin": [s for s in crypto if s.file == "natural_test" and s.entity],
        "crypto hard, per coin": hard,
    }
    for kind in sorted({sample.kind for sample in hard}):
        sets[f"  of these {kind}"] = [sample for sample in hard if sample.kind == kind]
    return sets


def calibrate(folder: Path, version: str, samples: list[Sample]) -> None:
    """Fit the calibration of the model in `folder` and write its ``model.json``."""
    bare = Manifest(version, MAX_TOKENS, NO_CALIBRATION, {})
    logits = logits_of(load_model(folder, bare), samples)
    labels = np.array([sample.label for sample in samples])
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    manifest = Manifest(version, MAX_TOKENS, calibration.fit(logits, labels), sums)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    (folder / "model.json").write_bytes(text + b"\n")


def logits_of(model: Model, samples: list[Sample]) -> Any:
    """Logits, [samples, classes]."""
    return np.array([model(sample.text) for sample in samples])


def main() -> int:
    """Print a table of the test sets, and headlines a second on one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--calibrate", metavar="VERSION", help="fit and write model.json for this version")
    asked = parser.parse_args()
    decoder = msgspec.json.Decoder(Sample)
    samples = [decoder.decode(line) for line in asked.samples.open("rb")]
    if asked.calibrate:
        chosen = [sample for sample in samples if sample.split == "calibration"]
        calibrate(asked.model, asked.calibrate, chosen)
    manifest = load_manifest(asked.model)
    model = load_model(asked.model, manifest)
    sys.stdout.write(f"{'':28}{'texts':>7}{'accuracy':>10}{'macro-F1':>10}{'AUC +/-':>10}\n")
    for name, chosen in test_sets(samples).items():
        opinions = [opine(tuple(row), manifest.calibration, "") for row in logits_of(model, chosen).tolist()]
        labels = np.array([sample.label for sample in chosen])
        told = np.array([opinion.signal + 1 for opinion in opinions])
        scores = np.array([opinion.score for opinion in opinions])
        figures = (accuracy(labels, told), macro_f1(labels, told), auc(labels, scores))
        sys.stdout.write(
            f"{name:28}{len(chosen):7,d}" + "".join(f"{figure:10.3f}" for figure in figures) + "\n"
        )
    texts = [s.text for s in samples if s.file == "natural_test" and not s.entity]
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        for text in texts:
            model(text)
        rates.append(len(texts) / (time.perf_counter() - began))
    size = sum((asked.model / name).stat().st_size for name in manifest.files) / 1e6
    sys.stdout.write(
        f"\n{max(rates):,.0f} headlines/s on one thread (median {sorted(rates)[2]:,.0f}); {size:.1f} MB\n"
        f"{json.dumps(msgspec.to_builtins(manifest.calibration))}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
