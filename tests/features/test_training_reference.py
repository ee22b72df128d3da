"""Training sets against a naive reference that loops over what had been observed by each row's time."""

import math
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.news import NewsSignal
from services.features.groups import TA
from services.features.sentiment import SentimentWriter
from services.features.training import Label
from services.features.windows import WINDOWS_MS
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples

STEP = 5 * MINUTE
FEATURES = ["close", "rsi_14", "news_count_15m", "news_count_4h", "sentiment_mean_1h", "seconds_since_news"]


def _news() -> st.SearchStrategy[list[NewsSignal]]:
    def make(coin: str, seconds: int, delay_s: int, score: int, story: str) -> NewsSignal:
        # Published long before it was seen: whoever joins by that time sees the future.
        published = T0 + (seconds - delay_s) * 1_000
        return signal(seconds * 1_000, story, score / 8, coin=coin, published_at_ms=published)

    made = st.builds(
        make,
        st.sampled_from(["BTC", "ETH"]),
        st.integers(-4_000, 7_000) | st.integers(-10, 25).map(lambda i: i * 300),
        st.integers(0, 7_200),
        st.integers(-8, 8),
        st.sampled_from("abc"),
    )
    return st.lists(made, max_size=12, unique_by=lambda s: (s.coin, s.observed_at_ms, s.story_id))


def _candles() -> st.SearchStrategy[dict[tuple[str, str], dict[int, list[float]]]]:
    """Closes by exchange, pair and place, of each revision; with holes."""
    series = st.sampled_from([("kraken", "BTC/USD"), ("kraken", "ETH/USD"), ("zeta", "BTC/USD")])
    closes = st.lists(st.floats(1, 1e5), min_size=1, max_size=3)
    return st.dictionaries(series, st.dictionaries(st.integers(0, 19), closes, min_size=1), min_size=1)


def reference(
    candles: dict[tuple[str, str], dict[int, list[float]]],
    news: list[NewsSignal],
    horizons: list[int],
    label: Label,
    last: int,
) -> list[dict[str, Any]]:
    rows = []
    for (exchange, pair), by_place in sorted(candles.items()):
        for at in sorted(place for place in by_place if place <= last):
            end = T0 + (at + 1) * STEP
            close = by_place[at][-1]
            seen = [s for s in news if s.coin == pair[:3] and s.observed_at_ms <= end]

            def inside(name: str, seen: list[NewsSignal] = seen, end: int = end) -> list[NewsSignal]:
                return [s for s in seen if s.observed_at_ms > end - WINDOWS_MS[name]]

            row: dict[str, Any] = {
                "exchange": exchange,
                "pair": pair,
                "timeframe": "5m",
                "end_ms": end,
                "known_at_ms": end,
                "close": close,
                "rsi_14": float(at) if at > 3 else None,
                "news_count_15m": len(inside("15m")),
                "news_count_4h": len(inside("4h")),
                "sentiment_mean_1h": fmean(s.score for s in inside("1h")) if inside("1h") else None,
                "seconds_since_news": (end - max(s.observed_at_ms for s in seen)) / 1000 if seen else None,
            }
            for horizon in horizons:
                path = range(at, at + horizon + 1)
                whole = all(place in by_place and place <= last for place in path)
                row[f"label_{label}_{horizon}"] = (
                    follow(label, close, by_place[at + horizon][-1]) if whole else None
                )
            rows.append(row)
    return rows


def follow(label: Label, close: float, later: float) -> float:
    if label == "direction":
        return (later > close) - (later < close)
    return math.log(later / close) if label == "log_return" else later / close - 1


def close_to(found: Any, expected: Any) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)
    return bool(found == expected)


@settings(max_examples=40, deadline=None)
@given(
    candles=_candles(),
    news=_news(),
    horizons=st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True),
    label=st.sampled_from(["log_return", "return", "direction"]),
    last=st.integers(0, 20),
)
def test_a_training_set_is_what_a_plain_loop_over_the_past_finds(
    candles: dict[tuple[str, str], dict[int, list[float]]],
    news: list[NewsSignal],
    horizons: list[int],
    label: Label,
    last: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder, make_store(Path(folder, "store")) as store:
        writer = SentimentWriter(store, lambda: T0 + 90 * 24 * 60 * MINUTE)
        for coin in ("BTC", "ETH"):
            writer.write(coin, [s for s in news if s.coin == coin])
        for (exchange, pair), by_place in candles.items():
            for at, closes in by_place.items():
                for revision, close in enumerate(closes):
                    values: dict[str, Any] = {"rsi_14": float(at) if at > 3 else None}
                    row = ta_row(
                        *(at,),
                        exchange=exchange,
                        pair=pair,
                        timeframe="5m",
                        close=close,
                        revision=revision,
                        **values,
                    )
                    store.write(TA, tuples([row]))
        table = store.training_set(
            sorted({pair for _, pair in candles}),
            "5m",
            end=T0 + (last + 1) * STEP,
            features=FEATURES,
            horizon=horizons,
            dropna=False,
            label=label,
        )
    expected = reference(candles, news, horizons, label, last)
    found = table.to_pylist()
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert [*row] == [*other]
        assert all(close_to(row[name], other[name]) for name in row), (row, other)
