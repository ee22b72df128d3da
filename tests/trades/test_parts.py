"""The small parts: fills, progress, watchdogs, backoff, heartbeat times, settings."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.backoff import Backoff
from services.common.errors import SettingsError, SourceError, SourceUnavailableError
from services.trades.exchanges import REGISTRY
from services.trades.exchanges.contract import Gap, Page, PageRequest
from services.trades.filler import FillLimits, fill
from services.trades.heartbeats import DeliveryDelay
from services.trades.progress import Position, Progress
from services.trades.rest import http_fetch, retry_after_s
from services.trades.settings import TradesSettings
from services.trades.watchdogs import PairWatch, SocketWatch
from tests.trades.support import T0_MS, kraken_pages, rest_server, settings

GAP = Gap("BTC/USD", 11, 20, T0_MS + 100)


class Filling:
    """Runs a fill with a clock that only its own waits move."""

    def __init__(self, fetch: Callable[[Gap, PageRequest], Page], timeout_s: float = 300.0) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.ids: list[int] = []

        def wait(seconds: float) -> bool:
            self.waits.append(seconds)
            self.now += seconds
            return False

        self.error = fill(
            GAP,
            REGISTRY["kraken"](("BTC/USD",)),
            fetch,
            FillLimits(timeout_s, 1.0),
            emit=lambda page: self.ids.extend(trade.trade_id for trade in page.trades),
            wait=wait,
            clock=lambda: self.now,
        )


def over_http(url: str) -> Callable[[Gap, PageRequest], Page]:
    return http_fetch(REGISTRY["kraken"](("BTC/USD",)), url, lambda: T0_MS + 10_000)


def test_a_fill_follows_the_pages_to_the_end_of_the_gap() -> None:
    with rest_server(kraken_pages(range(1, 100), page_rows=7)) as rest:
        filling = Filling(over_http(rest.url))
    assert filling.error is None
    assert set(filling.ids) >= set(range(11, 21))
    assert max(filling.ids) < 40


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {"Retry-After": "7"}, b""),
        (500, {}, b"oops"),
        (503, {}, b""),
        (520, {}, b"<html>unknown error</html>"),
        (200, {}, b"<html>maintenance</html>"),
        (200, {}, b'{"error":[],"result":{"XXBTZUSD":[["1'),
        (200, {}, b'{"error":["EAPI:Rate limit exceeded"]}'),
    ],
)
def test_trouble_that_passes_is_waited_out(trouble: tuple[int, dict[str, str], bytes]) -> None:
    pages = kraken_pages(range(1, 100))
    troubles = iter([trouble, trouble])
    with rest_server(lambda path, params: next(troubles, None) or pages(path, params)) as rest:
        filling = Filling(over_http(rest.url))
    assert filling.error is None
    assert set(filling.ids) >= set(range(11, 21))
    assert filling.waits == ([7.0, 7.0] if trouble[0] == 429 else [1.0, 2.0])


def test_a_fill_gives_up_when_its_time_is_over() -> None:
    with rest_server(lambda path, params: (500, {}, b"")) as rest:
        filling = Filling(over_http(rest.url), timeout_s=20)
    assert filling.error == "not filled within 20 s, at last: kraken: HTTP 500"
    assert sum(filling.waits) < 20


def test_a_final_refusal_ends_a_fill_at_once() -> None:
    with rest_server(lambda path, params: (404, {}, b"no such pair")) as rest:
        filling = Filling(over_http(rest.url))
    assert filling.error == "kraken: HTTP 404 no such pair"
    assert filling.waits == []


def test_a_cursor_that_does_not_advance_ends_a_fill() -> None:
    body = json.dumps({"error": [], "result": {"X": [], "last": str((T0_MS + 100) * 1_000_000)}}).encode()
    with rest_server(lambda path, params: (200, {}, body)) as rest:
        filling = Filling(over_http(rest.url))
        # An empty page proves nothing, so its cursor is no advance.
        assert len(rest.requests) == 3
    assert filling.error == "the exchange's cursor does not advance"


def test_an_answer_without_end_is_cut() -> None:
    with rest_server(lambda path, params: (200, {}, b" " * 9_000_000)) as rest:
        exchange = REGISTRY["kraken"](("BTC/USD",))
        with pytest.raises(SourceUnavailableError, match="more than"):
            over_http(rest.url)(GAP, exchange.first_page(GAP))


def test_retry_after_is_read_in_both_forms() -> None:
    assert retry_after_s("30") == 30.0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


# --- progress -------------------------------------------------------------------------------------


def test_progress_survives_and_counts_only_what_was_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "trades" / "kraken.json"
    progress = Progress(path, "live kraken")
    confirm = [progress.sent("BTC/USD", trade_id, T0_MS) for trade_id in (10, 20, 30)]
    confirm[0]()
    # A later confirmation does not cover an earlier message that is still out.
    confirm[2]()
    progress.save()
    assert Progress(path, "live kraken").positions == {"BTC/USD": Position(10, T0_MS)}
    confirm[1]()
    progress.save()
    assert Progress(path, "live kraken").positions == {"BTC/USD": Position(30, T0_MS)}
    assert Progress(path, "replay elsewhere").positions == {}


def test_progress_is_not_written_after_a_failed_delivery(tmp_path: Path) -> None:
    path = tmp_path / "kraken.json"
    progress = Progress(path, "live")
    progress.sent("BTC/USD", 1, T0_MS)()
    progress.failed()
    progress.save()
    assert not path.exists()


def test_progress_is_saved_about_once_a_second(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "kraken.json"
    progress = Progress(path, "live", lambda: now)
    progress.sent("BTC/USD", 1, T0_MS)()
    progress.save_if_due()
    assert not path.exists()
    now = 1.5
    progress.save_if_due()
    assert path.exists()


def test_a_progress_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "kraken.json"
    path.write_text("{")
    with pytest.raises(SourceError, match="delete the file"):
        Progress(path, "live")


# --- time -----------------------------------------------------------------------------------------


def test_backoff_doubles_with_jitter_and_starts_over() -> None:
    backoff = Backoff(1.0, 60.0, 1000, lambda: 1.0)
    assert [backoff.next_attempt_s(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.succeeded()
    assert backoff.next_attempt_s(0.0) == 1.0
    assert Backoff(1.0, 60.0, 1000, lambda: 0.0).next_attempt_s(0.0) == 0.5


def test_backoff_keeps_within_the_limit_of_attempts() -> None:
    backoff = Backoff(0.001, 0.001, 5, lambda: 1.0)
    attempts: list[float] = []
    now = 0.0
    for _ in range(12):
        backoff.attempt(now)
        attempts.append(now)
        now = backoff.next_attempt_s(now)
    for start in attempts:
        assert len([at for at in attempts if start <= at < start + 600]) <= 5


def test_watchdogs_notice_silence() -> None:
    socket = SocketWatch(5.0)
    assert not socket.is_silent(100.0)
    socket.reset(0.0)
    assert not socket.is_silent(5.0)
    assert socket.is_silent(5.1)
    pairs = PairWatch(600.0)
    pairs.reset(("BTC/USD", "ETH/USD"), 0.0)
    pairs.seen("BTC/USD", 300.0)
    assert pairs.quiet(601.0) == ["ETH/USD"]
    assert pairs.quiet(602.0) == []


def test_heartbeats_stay_behind_by_the_slowest_delivery_of_late() -> None:
    delay = DeliveryDelay(1000)
    assert delay.known_until_ms(T0_MS) == T0_MS - 1000
    delay.observe(T0_MS - 3000, T0_MS)
    assert delay.known_until_ms(T0_MS) == T0_MS - 3000
    delay.observe(T0_MS, T0_MS + 60_000)
    assert delay.known_until_ms(T0_MS) == T0_MS - 60_000 or delay.known_until_ms(T0_MS) <= T0_MS - 3000
    delay = DeliveryDelay(1000)
    delay.observe(T0_MS - 3000, T0_MS)
    delay.observe(T0_MS + 299_950, T0_MS + 300_000)
    assert delay.known_until_ms(T0_MS) == T0_MS - 1000


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "TRADES_PAIRS: name at least one pair"),
        ({"pairs": "XBT/USD"}, "bitcoin is written BTC"),
        ({"pairs": "btcusd"}, "write it like BTC/USD"),
        ({"pairs": "BTC/USD,BTC/USD"}, "named twice"),
        ({"pairs": "BTC/USD", "exchange": "nasdaq"}, "no live feed; known: kraken"),
        ({"pairs": "BTC/USD", "exchange": "Kraken!"}, "TRADES_EXCHANGE"),
        ({"pairs": "BTC/USD", "heartbeat_s": "0"}, "TRADES_HEARTBEAT_S"),
        ({"pairs": "BTC/USD", "source": "csv"}, "TRADES_SOURCE"),
        ({"pairs": "BTC/USD", "replay_sped": "1"}, "did you mean TRADES_REPLAY_SPEED"),
        ({"source": "replay"}, "TRADES_REPLAY_PATH: a replay needs"),
        ({"source": "replay", "replay_path": "x.csv", "replay_speed": "-1"}, "TRADES_REPLAY_SPEED"),
        ({"source": "replay", "replay_path": "x.csv", "replay_until": "soon"}, "ISO time"),
        ({"source": "replay", "replay_path": "x.csv", "replay_until": "1780000000"}, "13 digits"),
        ({"pairs": "BTC/USD", "backoff_min_s": "9", "backoff_max_s": "2"}, "less than"),
        ({"pairs": "BTC/USD", "ws_url": "http://x"}, "TRADES_WS_URL"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**values)


def test_a_csv_replay_may_have_any_exchange_name() -> None:
    chosen = settings(source="replay", exchange="simulated", replay_path="x.csv", replay_until="2026-12-01")
    assert chosen.exchange == "simulated"
    assert chosen.replay_until == 1_796_083_200_000
    assert settings(source="replay", replay_path="x", replay_until="1796083200000").replay_until == (
        1_796_083_200_000
    )


def test_every_setting_has_a_description_and_the_example_file_is_valid() -> None:
    assert all(field.description for field in TradesSettings.model_fields.values())
    example = Path(__file__).parents[2] / "services" / "trades" / ".env"
    loaded = TradesSettings.load({}, example)
    assert loaded.pairs == ("BTC/USD", "ETH/USD", "SOL/USD", "XRP/USD")
    assert loaded.exchange == "kraken"
