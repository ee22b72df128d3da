"""Samples, calibration and figures of the embedded model, without torch."""

import csv
import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.news import COIN_PATTERN
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder
from services.news_signals.engines.contract import Mention
from services.news_signals.engines.embedded import Calibration, opine
from services.news_signals.training import calibration
from services.news_signals.training.datasets import crypto, sentfin, tfns
from services.news_signals.training.metrics import accuracy, auc, macro_f1
from services.news_signals.training.prepare import CRYPTO_FILES, HERE

SENTFIN = """S No.,Title,Decisions,Words
1,Gold shines on demand; silver dull,"{'Gold': 'positive', 'silver': 'negative'}",6
2,Osian's Art Fund under Sebi's lens,"{""Osian's Art Fund"": 'negative', 'Sebi': 'neutral'}",6
3,Mid caps in demand,{'Mid caps': 'positive'},4
"""
FILES = {name: HERE / "data" / f"{name}.csv" for name in CRYPTO_FILES}


def rows_of(name: str) -> list[dict[str, str]]:
    with FILES[name].open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_entity_of_a_title_is_a_sample_of_its_own() -> None:
    samples = list(sentfin(SENTFIN.splitlines(keepends=True)))
    assert [(s.text, s.label) for s in samples] == [
        ("[TARGET] shines on demand; [OTHER] dull", 2),
        ("[OTHER] shines on demand; [TARGET] dull", 0),
        ("[TARGET] under [OTHER]'s lens", 0),
        ("[OTHER] under [TARGET]'s lens", 1),
        ("[TARGET] in demand", 2),
        ("Mid caps in demand", 2),
    ]


def test_all_samples_of_a_title_are_in_one_split() -> None:
    lines = ["Title,Decisions\n"]
    lines += [f"Alpha {n} beats Beta,\"{{'Alpha': 'positive', 'Beta': 'negative'}}\"\n" for n in range(300)]
    splits: dict[str, set[str]] = {}
    for sample in sentfin(lines):
        number = re.findall(r"\d+", sample.text)[0]
        splits.setdefault(number, set()).add(sample.split)
    assert all(len(split) == 1 for split in splits.values())
    in_test = sum(split == {"test"} for split in splits.values())
    assert 10 < in_test < 60


def test_a_tweet_is_cleaned_of_links_and_its_only_cashtag_is_masked_too() -> None:
    samples = list(tfns(["text,label\n", '"$BYND - cut to sell https://t.co/x",0\n'], "train"))
    assert [(s.text, s.label) for s in samples] == [("$BYND - cut to sell", 0), ("[TARGET] - cut to sell", 0)]


def test_our_headlines_give_the_whole_and_each_coin_that_is_found() -> None:
    def find(title: str) -> list[Mention]:
        return [Mention("BTC", 0, 7), Mention("ETH", 14, 19)]

    lines = ["title,overall,coins,kind\n", "Bitcoin beats Ether,neu,BTC+ ETH-,contrast\n"]
    samples = list(crypto(lines, "test", "hard_test", find))
    assert [(s.text, s.label, s.entity) for s in samples] == [
        ("Bitcoin beats Ether", 1, ""),
        ("[TARGET] beats [OTHER]", 2, "BTC"),
        ("[OTHER] beats [TARGET]", 0, "ETH"),
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_headline_of_ours_is_labelled_as_the_readme_says(name: str) -> None:
    for row in rows_of(name):
        assert row["title"].strip()
        assert row["overall"] in ("pos", "neg", "neu")
        for item in row["coins"].split():
            assert item[-1] in "+-0"
            assert re.match(COIN_PATTERN, item[:-1])


def test_no_title_of_ours_stands_in_two_files() -> None:
    titles = {name: {re.sub(r"\W+", " ", r["title"].lower()) for r in rows_of(name)} for name in FILES}
    assert [pair for pair in combinations(titles, 2) if titles[pair[0]] & titles[pair[1]]] == []


def test_the_readme_counts_the_headlines() -> None:
    text = (HERE / "data" / "README.md").read_text()
    counted = {name: int(count) for name, count in re.findall(r"^\| `(\w+)\.csv` \| (\d+) \|", text, re.M)}
    assert counted == {name: len(rows_of(name)) for name in FILES}


def test_coins_are_found_in_our_headlines_as_they_are_labelled() -> None:
    finder = CoinFinder(load_coins())
    hits = found = labelled = 0
    for name in ("natural_test", "hard_test"):
        for row in rows_of(name):
            wanted = {item[:-1].replace("MATIC", "POL") for item in row["coins"].split()} - {"CRYPTO"}
            named = set(finder.find(row["title"]).coins) - {"CRYPTO"}
            hits += len(wanted & named)
            found += len(named)
            labelled += len(wanted)
    assert hits / found > 0.98
    assert hits / labelled > 0.95


def test_auc_is_the_share_of_pairs_in_order() -> None:
    labels = np.array([0, 0, 1, 2, 2])
    assert auc(labels, np.array([-1.0, 0.5, 9.0, 0.5, 1.0])) == (2 + 1.5) / 4
    assert accuracy(labels, np.array([0, 0, 1, 2, 0])) == 0.8
    assert macro_f1(labels, labels) == 1.0
    assert macro_f1(labels, np.array([0, 0, 0, 0, 0])) == pytest.approx(4 / 7 / 3)


def test_calibration_undoes_overconfidence_and_a_shift() -> None:
    random = np.random.default_rng(3)
    true = random.normal(0, 1.5, (6_000, 3))
    shares = calibration.probabilities(true, 1.0, np.zeros(3))
    labels = np.array([random.choice(3, p=row) for row in shares])
    distorted = (true - np.array([0.0, 1.0, 0.0])) * 3
    fitted = calibration.fit(distorted, labels)
    assert fitted.temperature == pytest.approx(3, rel=0.1)
    assert fitted.bias[1] - fitted.bias[0] == pytest.approx(1, abs=0.15)


@given(
    st.lists(st.tuples(*[st.floats(-8, 8)] * 3), min_size=1, max_size=20),
    st.floats(0.4, 2.5),
    st.floats(0.4, 2.5),
)
def test_the_engine_tells_what_the_calibration_was_fitted_with(
    logits: list[tuple[float, float, float]], low: float, high: float
) -> None:
    fitted = Calibration(1.3, (0.1, -0.2, 0.1), low, high)
    shares = calibration.probabilities(np.array(logits), fitted.temperature, np.array(fitted.bias))
    told = calibration.told(shares, low, high)
    for row, expected, one in zip(shares, told, logits, strict=True):
        edge = min(abs(row[2] - high * row[1]), abs(row[0] - low * row[1]), abs(row[2] - row[0]))
        if edge > 1e-9:
            assert opine(one, fitted, "1").signal == expected - 1
