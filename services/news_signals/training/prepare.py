"""`python -m services.news_signals.training.prepare`: labelled headlines → the samples that `train.py` reads.

SEntFiN and Twitter Financial News come from a folder and are checked against `sources.json`; our own
headlines are in `data/` beside this file.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder
from services.news_signals.training.datasets import Sample, Split, crypto, sentfin, tfns

HERE = Path(__file__).resolve().parent
#: Our own files and what each is for; the test files were written apart from the others.
CRYPTO_FILES: dict[str, Split] = {
    "general": "train",
    "events": "train",
    "markets": "train",
    "hard": "train",
    "hard_more": "train",
    "feeds": "calibration",
    "natural_test": "test",
    "hard_test": "test",
}


def main() -> int:
    """Write the samples; 1 when a source is missing or another file than expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sentfin.csv and tfns_*.csv")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    sources = json.loads((HERE / "sources.json").read_text())
    texts: dict[str, list[str]] = {}
    for name, source in sources.items():
        path = asked.data / name
        if not path.is_file():
            sys.stderr.write(
                f"there is no {path}; it is {source['origin']}. Name its folder with data=FOLDER\n"
            )
            return 1
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != source["sha256"]:
            sys.stderr.write(f"{path} is another file than the model was trained on (see sources.json)\n")
            return 1
        texts[name] = content.decode("utf-8").splitlines(keepends=True)
    finder = CoinFinder(load_coins())

    def samples() -> Iterator[Sample]:
        yield from sentfin(texts["sentfin.csv"])
        yield from tfns(texts["tfns_train.csv"], "train")
        yield from tfns(texts["tfns_valid.csv"], "test")
        for name, split in CRYPTO_FILES.items():
            lines = (HERE / "data" / f"{name}.csv").read_text().splitlines(keepends=True)
            yield from crypto(lines, split, name, lambda title: finder.find(title).mentions)

    counts: Counter[tuple[str, str]] = Counter()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with asked.out.open("wb") as file:
        for sample in samples():
            counts[sample.dataset, sample.split] += 1
            file.write(msgspec.json.encode(sample) + b"\n")
    for (dataset, split), count in sorted(counts.items()):
        sys.stdout.write(f"{count:8,d}  {dataset} {split}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
