"""The step with a fake engine: what is sent, ignored, refused and counted, and that batching never shows."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import ContractError
from services.common.messages import encode
from services.common.news import News
from services.news_signals.engines.contract import Story
from tests.news_signals.fake_engine import FakeEngine, opinion
from tests.news_signals.support import NOW, T0, Bench, message, news, tellings

MIXED = tellings(12, 3)


def undisturbed() -> dict[tuple[str, str, int], dict[str, object]]:
    bench = Bench()
    bench.take_all(MIXED)
    return bench.signals()


EXPECTED = undisturbed()


def test_a_telling_becomes_one_signal_for_each_coin() -> None:
    bench = Bench()
    bench.take_all([news(1)])
    rows = {coin: rows for coin, rows, _ in bench.sent.messages}
    assert list(rows) == ["ETH", "SOL", "BTC"]
    (signal,) = rows["SOL"]
    assert (signal.story_id, signal.novelty, signal.engine, signal.model_version) == (
        "story-1",
        1.0,
        "fake",
        "1",
    )
    assert (signal.published_at_ms, signal.observed_at_ms) == (T0 + 1_000, T0 + 1_000)
    assert signal.scored_at_ms == NOW
    assert signal.score == pytest.approx(signal.p_pos - signal.p_neg)
    assert signal.confidence == (signal.p_neg, signal.p_neu, signal.p_pos)[signal.signal + 1]
    assert 0 < sum(one[0].relevance for one in rows.values()) <= 1


def test_signals_of_a_coin_go_out_as_one_message_a_batch() -> None:
    bench = Bench(batch=4)
    bench.take_all([news(story) for story in (0, 6, 12, 18, 24)])
    assert [(coin, len(rows)) for coin, rows, _ in bench.sent.messages if coin == "BTC"] == [
        ("BTC", 4),
        ("BTC", 1),
    ]
    assert bench.engine.batches == [4, 1]


def test_a_full_batch_is_scored_at_once_and_the_rest_when_offsets_are_due() -> None:
    bench = Bench(batch=2)
    for story in (0, 1, 2):
        bench.take(message([news(story)]))
    assert bench.engine.batches == [2]
    assert bench.sent.flushed == 0
    bench.scoring.flush()
    assert (bench.engine.batches, bench.sent.flushed) == ([2, 1], 1)
    bench.scoring.flush()
    assert (bench.engine.batches, bench.sent.flushed) == ([2, 1], 2)


def test_each_further_telling_is_less_new_and_a_repeated_delivery_is_ignored() -> None:
    bench = Bench()
    bench.take_all([news(1), news(1, 1), news(1), news(1, 2), news(1, 1)])
    assert sorted({row["novelty"] for row in bench.signals().values()}) == [0.75**2, 0.75, 1.0]
    assert bench.count("duplicate_stories_total") == 2
    assert bench.count("stories_total") == 3


def test_the_engine_is_given_the_text_with_its_mentions() -> None:
    asked: list[Any] = []

    class Listening(FakeEngine):
        def score(self, stories: Sequence[object]) -> list[object]:  # type: ignore[override]
            asked.extend(stories)
            return super().score(stories)  # type: ignore[arg-type, return-value]

    Bench(engine=Listening()).take_all([news(1, body="Solana fell.", coins=("DOGE",))])
    (story,) = asked
    assert story.coins == ("ETH", "SOL", "BTC", "DOGE")
    assert [(m.coin, story.title[m.start : m.end]) for m in story.mentions] == [
        ("ETH", "Ether"), ("SOL", "Solana"), ("BTC", "Bitcoin"),
    ]  # fmt: skip
    assert [(m.coin, m.start, m.end) for m in story.body_mentions] == [("SOL", 0, 6)]


def test_a_story_without_coins_gives_no_signal_and_is_counted() -> None:
    bench = Bench()
    bench.take_all([news(5, body="")])
    assert bench.sent.messages == []
    assert bench.engine.batches == []
    assert bench.count("stories_without_coins_total") == 1


def test_an_unknown_hint_is_ignored_and_counted() -> None:
    bench = Bench()
    bench.take_all([news(0, coins=("NOSUCHCOIN", "DOGE"))])
    assert {coin for coin, _, _ in bench.sent.messages} == {"BTC", "DOGE"}
    assert bench.count("unknown_hints_total") == 1


@pytest.mark.parametrize("body", ["", "   \n\t", "🚀" * 20_000, "\x00"])
def test_any_body_is_fine(body: str) -> None:
    bench = Bench()
    bench.take_all([news(0, body=body)])
    assert len(bench.signals()) == 1


def test_a_signal_is_never_scored_before_it_was_observed() -> None:
    bench = Bench()
    bench.take_all([news(0, observed_at_ms=NOW + 4_000)])
    ((_, (signal,), _),) = bench.sent.messages
    assert signal.scored_at_ms == signal.observed_at_ms == NOW + 4_000


def test_the_oldest_receipt_of_a_batch_is_passed_on() -> None:
    bench = Bench()
    bench.take(message([news(0)], received_ms=700))
    bench.take(message([news(6)], received_ms=500))
    bench.take(message([news(12)], received_ms=None))
    bench.take(message([news(4, title="Litecoin mining")], received_ms=None))
    bench.scoring.flush()
    assert {coin: received for coin, _, received in bench.sent.messages}["BTC"] == 500
    assert {coin: received for coin, _, received in bench.sent.messages}["LTC"] is None


def test_bad_rows_are_refused_alone_and_leave_the_state_as_it_was() -> None:
    bench = Bench()
    good = msgspec.json.decode(encode(news(1)))
    rows = [
        good | {"title": ""},
        good,
        good | {"story_id": "other"},
        good | {"observed_at_ms": NOW + 6_000},
        good | {"published_at_ms": NOW + 10**8},
    ]
    result = bench.take(message(encode(rows), b"story-1"))
    refused = sorted(result.refused, key=lambda one: one[0])
    assert [(index, error.reason) for index, _, error in refused] == [
        (0, "bad_row"), (2, "bad_key"), (3, "future_event"), (4, "future_event"),
    ]  # fmt: skip
    for index, raw, _ in refused:
        assert msgspec.json.decode(raw) == [rows[index]]
    bench.scoring.flush()
    assert result.rows_in == 1
    assert {name[1:] for name in bench.signals()} == {("story-1", T0 + 1_000)}


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b"[1", b'"x"'])
def test_what_is_no_json_array_is_refused_whole(value: bytes) -> None:
    bench = Bench()
    with pytest.raises(ContractError):
        bench.take(message(value, b"story-1"))
    assert bench.states[b"story-1"].values == {}


def test_an_engine_that_answers_too_little_is_a_bug_and_ends_the_process() -> None:
    class Short(FakeEngine):
        def score(self, stories: Sequence[object]) -> list[object]:  # type: ignore[override]
            return []

    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Bench(engine=Short()).take_all([news(1)])


def test_what_an_engine_could_not_score_waits_for_the_next_try() -> None:
    class Moody(FakeEngine):
        def score(self, stories: Sequence[object]) -> list[object]:  # type: ignore[override]
            if not self.batches:
                self.batches.append(0)
                raise RuntimeError("not now")
            return super().score(stories)  # type: ignore[arg-type, return-value]

    bench = Bench(engine=Moody())
    with pytest.raises(RuntimeError):
        bench.take_all([news(1)])
    bench.scoring.flush()
    assert len(bench.signals()) == 3


def test_the_metrics_say_what_was_done() -> None:
    bench = Bench(batch=5)
    bench.take_all(MIXED)
    assert bench.count("signals_total", engine="fake") == len(EXPECTED)
    assert bench.count("scoring_seconds_count") == len(bench.engine.batches)
    assert bench.count("stories_total") == len(MIXED)
    assert bench.count("last_event_timestamp_seconds", exchange="news") == MIXED[-1].observed_at_ms / 1000


@settings(max_examples=40)
@given(st.data())
def test_any_batching_duplicates_and_restarts_give_the_same_signals(data: st.DataObject) -> None:
    """Messages of one or more tellings, some repeated; at times the process dies since its last commit."""
    bench = Bench(batch=data.draw(st.integers(1, 8)))
    left = list(MIXED)
    committed, committed_states = list(left), {}
    while left:
        story = left[0].story_id
        same = [row for row in left if row.story_id == story][: data.draw(st.integers(1, 3))]
        left = [row for row in left if row not in same]
        known = [row for row in MIXED if row.story_id == story and row not in left]
        again = data.draw(st.lists(st.sampled_from(known), max_size=2))
        rows: list[News] = [*same, *again]
        bench.take(message(rows))
        event = data.draw(st.sampled_from(("go on", "commit", "die", "die after the flush")))
        if event in ("commit", "die after the flush"):
            bench.scoring.flush()
        if event == "commit":
            committed = list(left)
            committed_states = {key: dict(state.values) for key, state in bench.states.items()}
        elif event != "go on" and data.draw(st.integers(0, 3)) == 0:
            left = list(committed)
            for key, state in bench.states.items():
                state.values = dict(committed_states.get(key, {}))
            bench.restart(data.draw(st.integers(1, 8)))
    bench.scoring.flush()
    assert bench.signals() == EXPECTED


def test_the_opinions_in_the_signals_are_the_engines() -> None:
    stories = {(row.story_id, row.observed_at_ms): row for row in MIXED}
    for (coin, story_id, observed_at_ms), row in EXPECTED.items():
        news_row = stories[story_id, observed_at_ms]
        asked = Story(news_row.title, news_row.body, (coin,))
        assert row["p_pos"] == opinion(asked, coin).p_pos
