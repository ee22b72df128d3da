"""Settings refuse what they do not know and say what to write instead."""

import re
from pathlib import Path

import pytest

from services.candles.settings import CandlesSettings
from services.common.errors import SettingsError
from services.common.messages import encode
from services.common.news import MAX_BODY_CHARS, MAX_TITLE_CHARS
from services.common.schemas import ROWS
from services.common.settings import BrokerSettings, check_pairs
from services.common.topics import batch_bytes
from services.features.settings import FeaturesSettings
from services.news.settings import NewsSettings
from services.news_signals.settings import NewsSignalsSettings
from services.ta.settings import TaSettings
from services.trades.settings import TradesSettings


def problem(settings: type, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as error:
        settings.load(environ)  # type: ignore[attr-defined]
    return str(error.value)


def test_defaults_need_no_environment() -> None:
    assert BrokerSettings.load({}).partitions == 12
    assert CandlesSettings.load({}).grace_ms == 2_000


def test_an_unknown_variable_is_refused_with_the_nearest_known_one() -> None:
    text = problem(CandlesSettings, {"CANDLES_GRACE": "5", "PATH": "/bin"})
    assert "CANDLES_GRACE: unknown setting; did you mean CANDLES_GRACE_MS?" in text


def test_an_unknown_timeframe_is_refused_with_the_known_ones() -> None:
    assert "unknown timeframe 2m; known: 1m, 5m" in problem(CandlesSettings, {"CANDLES_TIMEFRAMES": "1m,2m"})


def test_timeframes_come_back_shortest_first() -> None:
    assert CandlesSettings.load({"CANDLES_TIMEFRAMES": "1h, 1m"}).timeframes == ("1m", "1h")


def test_an_unknown_indicator_is_refused_with_the_known_ones() -> None:
    assert "unknown indicator rsi_15; known: rsi_9" in problem(TaSettings, {"TA_INDICATORS": "rsi_15"})


@pytest.mark.parametrize(
    ("pair", "hint"),
    [
        ("BTCUSD", "write it like BTC/USD"),
        ("btc/usd", "write it like"),
        ("XBT/USD", "bitcoin is written BTC"),
    ],
)
def test_a_wrong_pair_is_refused(pair: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        check_pairs((pair,))


@pytest.mark.parametrize(
    "variable", ["CANDLES_COMMIT_INTERVAL_S", "CANDLES_CORRECTION_HORIZON_S", "CANDLES_STALE_AFTER_S"]
)
def test_an_interval_must_be_positive(variable: str) -> None:
    assert f"{variable}: Input should be greater than 0" in problem(CandlesSettings, {variable: "0"})


def test_the_horizon_must_exceed_the_grace() -> None:
    text = problem(CandlesSettings, {"CANDLES_GRACE_MS": "60000", "CANDLES_CORRECTION_HORIZON_S": "60"})
    assert "CANDLES_CORRECTION_HORIZON_S must be longer than CANDLES_GRACE_MS" in text


@pytest.mark.parametrize(
    ("settings", "environ", "line"),
    [
        (CandlesSettings, {"CANDLES_GRACE_MS": "-1"}, "CANDLES_GRACE_MS: Input should"),
        (CandlesSettings, {"candles_grace_ms": "-1"}, "CANDLES_GRACE_MS: Input should"),
        (CandlesSettings, {"CANDLES_TIMEFRAMES": "2m"}, "CANDLES_TIMEFRAMES: unknown timeframe 2m"),
        (
            CandlesSettings,
            {"CANDLES_GRACE_MS": "60000", "CANDLES_CORRECTION_HORIZON_S": "60"},
            "CANDLES_CORRECTION_HORIZON_S must be longer than CANDLES_GRACE_MS",
        ),
        (TradesSettings, {"TRADES_EXCHANGE": "nyse"}, "TRADES_EXCHANGE: 'nyse' has no live feed"),
        (TradesSettings, {"TRADES_SOURCE": "replay"}, "TRADES_REPLAY_PATH: a replay needs"),
        (NewsSettings, {"NEWS_SOURCES": "file"}, "NEWS_FILE_PATH: the source file needs one"),
        (NewsSettings, {"NEWS_SOURCES": "paper"}, "NEWS_SOURCES: unknown source"),
        (NewsSignalsSettings, {"NEWS_SIGNALS_LLM_DAILY_USD": "1"}, "NEWS_SIGNALS_LLM_DAILY_USD: a cost cap"),
        (
            NewsSignalsSettings,
            {"NEWS_SIGNALS_ENGINE": "x"},
            "NEWS_SIGNALS_ENGINE: Input should be 'embedded'",
        ),
        (FeaturesSettings, {"FEATURES_API_KEY": "short"}, "FEATURES_API_KEY: "),
        (FeaturesSettings, {"FEATURES_STORE_PTH": "x"}, "FEATURES_STORE_PTH: unknown setting; did you mean"),
        (BrokerSettings, {"KAFKA_BROKER": "x"}, "KAFKA_BROKER: unknown setting; did you mean KAFKA_BROKERS?"),
    ],
)
def test_a_problem_names_its_setting_once_as_it_is_written(
    settings: type, environ: dict[str, str], line: str
) -> None:
    head, *lines = problem(settings, environ).splitlines()
    assert head == "settings are wrong:"
    assert len(lines) == 1
    assert lines[0].startswith(f"  {line}")
    assert re.findall(r"\b[A-Z_]+\b", lines[0]).count(line.split()[0].removesuffix(":")) == 1


@pytest.mark.parametrize("topic", [name for name in ROWS if name != "dead_letters"])
def test_a_message_may_not_be_so_small_that_a_row_does_not_fit(topic: str) -> None:
    widest = {
        "exchange": "e" * 31,
        "pair": f"{'A' * 20}/{'B' * 20}",
        "timeframe": "15m",
        "side": "sell",
        "story_id": "s" * 64,
        "source": "\U0001f600" * 100,
        "title": "\U0001f600" * MAX_TITLE_CHARS,
        "body": "\U0001f600" * MAX_BODY_CHARS,
        "url": "\U0001f600" * 2_000,
        "coins": ["C" * 20] * 100,
        "coin": "C" * 20,
        "engine": "\U0001f600" * 100,
        "model_version": "\U0001f600" * 100,
        "signal": -1,
    }
    # Whatever is not listed is a number or a flag.
    values = {name: widest.get(name, -2.2250738585072014e-308) for name in ROWS[topic].__struct_fields__}
    assert len(encode([values])) < batch_bytes(BrokerSettings.load({"KAFKA_MAX_MESSAGE_BYTES": "200000"}))


def test_a_limit_of_messages_that_is_too_small_says_what_is_enough() -> None:
    text = problem(BrokerSettings, {"KAFKA_MAX_MESSAGE_BYTES": "2000"})
    assert "KAFKA_MAX_MESSAGE_BYTES: must be 200000 or more" in text


def test_every_problem_is_listed_at_once() -> None:
    text = problem(CandlesSettings, {"CANDLES_GRACE_MS": "-1", "CANDLES_HTTP_PORT": "x", "CANDLES_X": ""})
    assert text.count("\n") == 3


def test_the_environment_goes_before_the_file_and_quotes_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text('# comment\nCANDLES_GRACE_MS="7"\nexport CANDLES_HTTP_PORT=81\n')
    loaded = CandlesSettings.load({"CANDLES_HTTP_PORT": "82"}, env_file=path)
    assert (loaded.grace_ms, loaded.http_port) == (7, 82)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        CandlesSettings.load({}, env_file=tmp_path / "none.env")


def test_a_secret_is_shown_nowhere() -> None:
    settings = BrokerSettings.load({"KAFKA_SASL_PASSWORD": "canary-4711", "KAFKA_SASL_MECHANISM": "PLAIN"})
    assert "canary-4711" not in f"{settings!r}{settings.model_dump_json()}"
    assert settings.client_config()["sasl.password"] == "canary-4711"
    text = problem(BrokerSettings, {"KAFKA_SASL_PASSWORD": "canary-4711", "KAFKA_PARTITIONS": "canary-4712"})
    assert "canary" not in text
