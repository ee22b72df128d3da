"""The engine that ships: its files, its masking, and what it says."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import SettingsError
from services.common.metrics import Metrics
from services.news_signals.engines import build_engine
from services.news_signals.engines.contract import OVERALL, Engine, EngineContext, Mention, Opinion, Story
from services.news_signals.engines.embedded import (
    MODEL_DIR,
    Calibration,
    EmbeddedEngine,
    load_manifest,
    load_model,
    opine,
)
from services.news_signals.engines.masking import OTHER, TARGET, mask, masked_text
from services.news_signals.settings import NewsSignalsSettings

PLAIN = Calibration(1.0, (0.0, 0.0, 0.0), 1.0, 1.0)


def no_fallback() -> Engine:
    raise AssertionError("the embedded engine falls back to nothing")


@pytest.fixture(scope="module")
def engine() -> Engine:
    context = EngineContext(NewsSignalsSettings.load({}), Metrics(), Path(), no_fallback)
    return build_engine("embedded", context)


def story(title: str, *coins: str, body: str = "", in_body: tuple[str, ...] = ()) -> Story:
    """A story whose mentions are where the words of `coins` stand; a word's first letters are its coin."""
    return Story(title, body, coins or (OVERALL,), _places(title, coins), _places(body, in_body))


def _places(text: str, words: tuple[str, ...]) -> tuple[Mention, ...]:
    return tuple(
        sorted(
            (Mention(word, text.index(word), text.index(word) + len(word)) for word in words if word in text),
            key=lambda mention: mention.start,
        )
    )


def one(engine: Engine, asked: Story) -> Opinion:
    ((opinion,),) = engine.score([asked])
    return opinion


@pytest.mark.parametrize(
    ("title", "signal"),
    [
        ("Bitcoin jumps 9% as funds pile in", 1),
        ("Regulator approves first spot Ether fund", 1),
        ("Exchange halts withdrawals after $80 million hack", -1),
        ("Ether tumbles below support as longs are liquidated", -1),
        ("What is a rollup? A guide for beginners", 0),
        ("Stolen tokens are returned in full to the bridge", 1),
        ("Bitcoin fails to hold above support", -1),
    ],
)
def test_it_tells_good_news_from_bad(engine: Engine, title: str, signal: int) -> None:
    assert one(engine, story(title)).signal == signal


@pytest.mark.parametrize(
    "title",
    [
        "Ether slides while Solana rallies",
        "Solana soars to a record while Ether slides",
        "Investors rotate out of Ether into Solana",
        "Solana overtakes Ether in daily fees",
    ],
)
def test_one_headline_is_good_for_one_coin_and_bad_for_another(engine: Engine, title: str) -> None:
    ((ether, solana),) = engine.score([story(title, "Ether", "Solana")])
    assert ether.signal == -1
    assert solana.signal == 1


def test_names_do_not_matter(engine: Engine) -> None:
    asked = [story(f"{name} soars to a record", name) for name in ("Bitcoin", "Luna", "Dogecoin")]
    assert len(set(engine.score(asked))) == 1


def test_neighbours_do_not_change_a_score(engine: Engine) -> None:
    titles = ["Bitcoin slips", "Ether rises on strong demand from funds across Europe and Asia", "Solana"]
    together = engine.score([story(title) for title in titles])
    assert together == [engine.score([story(title)])[0] for title in reversed(titles)][::-1]


@given(st.text(max_size=300))
def test_any_text_gets_an_opinion(engine: Engine, text: str) -> None:
    opinion = one(engine, story(text))
    assert opinion.p_pos + opinion.p_neu + opinion.p_neg == pytest.approx(1)
    assert -1 <= opinion.score <= 1
    assert 0 <= opinion.confidence <= 1


def test_a_coin_is_masked_as_target_and_the_others_as_other() -> None:
    asked = story("Ether, Bitcoin and Ether again", "Ether", "Bitcoin")
    mentions = (*asked.mentions, Mention("Ether", 19, 24))
    assert mask(asked.title, mentions, "Ether") == f"{TARGET}, {OTHER} and {TARGET} again"
    assert mask(asked.title, mentions, "Bitcoin") == f"{OTHER}, {TARGET} and {OTHER} again"


def test_a_ticker_right_behind_a_name_says_nothing_more() -> None:
    title = "Bitcoin (BTC) falls"
    mentions = (Mention("BTC", 0, 7), Mention("BTC", 9, 12))
    assert mask(title, mentions, "BTC") == f"{TARGET} falls"


def test_a_coin_of_the_body_is_judged_by_its_sentence() -> None:
    asked = story(
        "A quiet day",
        "Ether",
        body="Bitcoin rose. Ether fell 3% to Bitcoin. Rain.",
        in_body=("Bitcoin", "Ether"),
    )
    mentions = (*asked.body_mentions, Mention("Bitcoin", 31, 38))
    asked = Story(asked.title, asked.body, asked.coins, (), mentions)
    assert masked_text(asked, "Ether") == f"{TARGET} fell 3% to {OTHER}."


def test_a_coin_that_is_only_hinted_at_is_judged_by_the_whole_title() -> None:
    assert masked_text(story("Markets fall", "BTC"), "BTC") == "Markets fall"


def test_a_text_brings_no_placeholders_of_its_own() -> None:
    assert TARGET not in masked_text(story("[TARGET] soars, [other] falls"), OVERALL)
    assert mask("[TARGET] buys Bitcoin", (Mention("BTC", 14, 21),), "BTC").count(TARGET) == 1


def test_the_signal_follows_from_the_odds() -> None:
    shares = (1.0, 1.5, 1.0)
    assert opine((0.0, 0.0, 0.1), PLAIN, "1").signal == 1
    assert opine((0.1, 0.0, 0.0), PLAIN, "1").signal == -1
    assert opine(shares, PLAIN, "1").signal == 0
    strict = Calibration(1.0, (0.0, 0.0, 0.0), 3.0, 3.0)
    assert opine((0.0, 0.0, 1.0), strict, "1").signal == 0
    assert opine((0.0, 0.0, 1.2), strict, "1").signal == 1


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_DIR, tmp_path / "model")
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(SettingsError, match=r"tokenizer\.json is not the file that model\.json names"):
        load_manifest(folder)


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_DIR, tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(SettingsError, match=name.replace(".", r"\.")):
        load_manifest(folder)


def test_a_manifest_with_nonsense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(SettingsError, match="cannot read the sentiment model"):
        load_manifest(tmp_path)


def test_long_texts_are_cut_and_copies_are_remembered(engine: Engine) -> None:
    manifest = load_manifest(MODEL_DIR)
    calls: list[str] = []
    model = load_model(MODEL_DIR, manifest)

    def counted(text: str) -> tuple[float, float, float]:
        calls.append(text)
        return model(text)

    fresh = EmbeddedEngine(counted, manifest)
    long = "Bitcoin rises " * 500
    assert fresh.score([story(long), story(long)])[0] == fresh.score([story(long)])[0]
    assert len(calls) == 1


def test_the_card_names_the_version_that_ships() -> None:
    assert load_manifest(MODEL_DIR).version in (MODEL_DIR / "CARD.md").read_text()
