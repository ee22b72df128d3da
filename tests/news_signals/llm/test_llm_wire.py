"""The engine against real sockets: what each provider is sent, and what each of its answers leads to."""

import json
from collections.abc import Callable
from itertools import count

import pytest

from services.news_signals.engines.contract import OVERALL
from tests.news_signals.llm.support import (
    ANTHROPIC,
    KEY,
    MODELS,
    OPENAI,
    Asked,
    Behaviour,
    Bench,
    FakeLlm,
    Reply,
    completion,
    error,
    honest,
    rating,
    refuses,
    reply,
    says,
    says_arguments,
    story,
)

type Opener = Callable[..., Bench]

every_model = pytest.mark.parametrize("model", MODELS)
both_protocols = pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
UP, DOWN, FLAT = story("Bitcoin surges"), story("Bridge hacked"), story("Bitcoin Conference opens")


@every_model
def test_stories_are_answered_by_the_model(bench: Opener, model: str) -> None:
    engine = bench(model=model).engine
    up, down, flat = engine.score([UP, DOWN, FLAT])
    assert [o.signal for o in (*up, *down, *flat)] == [1, -1, 0]
    assert up[0].p_pos == pytest.approx(0.8)
    assert up[0].engine == "llm"
    assert up[0].model_version == f"{model}/1.1"


@every_model
def test_a_request_has_temperature_0_one_typed_answer_and_the_coins_as_an_enum(
    bench: Opener, llm: FakeLlm, model: str
) -> None:
    bench(model=model).engine.score([story("Bitcoin surges past Ether", "BTC", "ETH", OVERALL)])
    (asked,) = llm.asked
    assert asked.body["temperature"] == 0
    assert not asked.body["stream"]
    assert asked.body.get("max_tokens", asked.body.get("max_completion_tokens")) == 4000
    assert '"enum": ["BTC", "ETH", "overall"]' in json.dumps(
        asked.body.get("tools") or asked.body["response_format"]
    )
    assert len(asked.body.get("tools", ())) <= 1
    assert asked.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("model", "output"),
    [
        (OPENAI, "json"),
        (OPENAI, "prompt"),
        (ANTHROPIC, "json"),
        (ANTHROPIC, "prompt"),
        ("ollama:llama3.1", "tool"),
        ("ollama:llama3.1", "prompt"),
        ("some/model", "json"),
        ("some/model", "prompt"),
    ],
)
def test_the_form_of_the_answer_can_be_chosen(bench: Opener, llm: FakeLlm, model: str, output: str) -> None:
    llm.otherwise = lambda asked: honest(asked, as_text=output != "tool")
    made = bench(model=model, output=output)
    assert made.engines(UP, DOWN) == ["llm", "llm"]
    assert ("tools" in llm.asked[0].body) == (output == "tool")


@pytest.mark.parametrize("model", ["openai:gpt-5-mini", "anthropic:claude-opus-4-8"])
def test_a_model_that_takes_no_temperature_is_asked_without_it(
    bench: Opener, llm: FakeLlm, model: str
) -> None:
    address = llm.url if model.startswith("anthropic") else f"{llm.url}/v1"
    assert bench(model=model, base_url=address).engines(UP) == ["llm"]
    assert "temperature" not in llm.asked[0].body


@every_model
def test_the_bound_that_is_charged_is_above_every_byte_sent(bench: Opener, llm: FakeLlm, model: str) -> None:
    llm.script.append(says(rating(1, "DOGE", 0, 1, 0)))
    llm.otherwise = slow
    made = bench(model=model, timeout_s=0.1, retries=1, daily_tokens=10**9, max_output_tokens=200)
    made.engine.score([story("Ｂitcoin surges „again“ 🚀" * 20, "BTC", "ETH", body="é" * 600)])
    (tokens, _) = made.engine._asker.guard.budget.spent("2026-07-07")
    # The first request was counted by the provider; the others ran into the time-out and stay charged.
    unanswered = llm.asked[1:]
    assert len(unanswered) == 2
    sent = sum(int(asked.headers["content-length"]) + 200 for asked in unanswered)
    assert sent <= tokens - 740 <= 2 * sent + 4_000


def test_each_coin_of_a_story_has_an_opinion_in_the_order_asked(bench: Opener, llm: FakeLlm) -> None:
    llm.script.append(
        says(rating(1, "BTC", 0.1, 0.1, 0.8), rating(1, "overall", 0, 1, 0), rating(1, "ETH", 0.9, 0.1, 0))
    )
    (opinions,) = bench().engine.score([story("Ether overtakes Bitcoin", "ETH", "BTC", OVERALL)])
    assert [opinion.signal for opinion in opinions] == [1, -1, 0]


def test_batches_hold_as_many_stories_as_set(bench: Opener, llm: FakeLlm) -> None:
    bench(batch=3).engine.score([story(f"Bitcoin surges {i}") for i in range(7)])
    assert sorted(len(asked.stories) for asked in llm.asked) == [1, 3, 3]


INVALID: dict[str, Behaviour] = {
    "a coin that was not asked": says(rating(1, "DOGE", 0, 1, 0)),
    "a missing pair": says(),
    "a pair twice": says(rating(1, "BTC", 0, 1, 0), rating(1, "BTC", 1, 0, 0)),
    "another story": says(rating(1, "BTC", 0, 1, 0), rating(2, "BTC", 1, 0, 0)),
    "a probability above 1": says(rating(1, "BTC", 1.2, 0, 0)),
    "a negative probability": says(rating(1, "BTC", -0.1, 1, 0.1)),
    "probabilities that add up to 1.5": says(rating(1, "BTC", 0.5, 0.5, 0.5)),
    "no probabilities": says(rating(1, "BTC", 0, 0, 0)),
    "text for numbers": says({**rating(1, "BTC", 0, 1, 0), "p_neu": "1"}),
    "a list": says_arguments([rating(1, "BTC", 0, 1, 0)]),
    "truncated JSON": says_arguments('{"ratings": [{"story": 1, "co'),
    "NaN": says_arguments('{"ratings": [{"story": 1, "coin": "BTC", "p_pos": NaN, "p_neu": 1, "p_neg": 0}]}'),
    "prose": says_arguments("I think this is good for Bitcoin."),
}


@both_protocols
@pytest.mark.parametrize("wrong", INVALID.values(), ids=INVALID)
def test_an_invalid_answer_is_asked_again(bench: Opener, llm: FakeLlm, model: str, wrong: Behaviour) -> None:
    llm.script.append(wrong)
    made = bench(model=model)
    assert made.engines(UP) == ["llm"]
    assert len(llm.asked) == 2
    assert len(llm.asked[1].body["messages"]) > len(llm.asked[0].body["messages"])


@pytest.mark.parametrize("model", ["ollama:llama3.1", "some/model"])
def test_an_invalid_answer_of_a_small_model_is_asked_again(bench: Opener, llm: FakeLlm, model: str) -> None:
    llm.script.extend([says(rating(1, "XRP", 0, 1, 0)), says_arguments("{")])
    assert bench(model=model).engines(UP) == ["llm"]
    assert len(llm.asked) == 3


def test_a_model_that_never_gives_a_valid_answer_is_replaced_by_the_fallback(
    bench: Opener, llm: FakeLlm
) -> None:
    llm.otherwise = says(rating(1, "DOGE", 0, 1, 0))
    made = bench(retries=2)
    assert made.engines(UP) == ["embedded"]
    assert len(llm.asked) == 3
    assert made.count("llm_fallbacks_total", reason="invalid") == 1
    assert made.count("llm_requests_total", result="invalid") == 1


@both_protocols
def test_a_refused_story_does_not_spoil_its_neighbours(bench: Opener, llm: FakeLlm, model: str) -> None:
    llm.otherwise = lambda asked: refuses(asked) if "poison" in asked.text else honest(asked)
    made = bench(model=model)
    assert made.engines(UP, story("Bitcoin poison"), DOWN) == ["llm", "embedded", "llm"]
    assert made.fallback.scored == ["Bitcoin poison"]
    # One for all, then one for each: nothing is split twice.
    assert len(llm.asked) == 4


@both_protocols
def test_a_story_that_the_provider_rejects_does_not_spoil_its_neighbours(
    bench: Opener, llm: FakeLlm, model: str
) -> None:
    llm.otherwise = lambda asked: error(400)(asked) if "poison" in asked.text else honest(asked)
    assert bench(model=model).engines(story("Bitcoin poison"), UP) == ["embedded", "llm"]


def test_an_answer_cut_at_the_token_limit_falls_back(bench: Opener, llm: FakeLlm) -> None:
    llm.otherwise = lambda asked: completion(asked, '{"ratings": [', finish="length")
    assert bench(retries=0).engines(UP) == ["embedded"]


@both_protocols
@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "auth"), (403, "auth"), (402, "quota"), (404, "model_not_found")],
)
def test_what_needs_somebody_to_act_is_reported_and_not_tried_again(
    bench: Opener, llm: FakeLlm, log: list[str], model: str, status: int, reason: str
) -> None:
    llm.otherwise = error(status, f"Incorrect key {KEY}")
    made = bench(model=model)
    assert made.engines(UP) == ["embedded"]
    assert made.engines(DOWN) == ["embedded"]
    assert len(llm.asked) == 1
    assert made.count("llm_requests_total", result=reason) == 1
    assert made.count("llm_fallbacks_total", reason="breaker") == 1
    assert any(reason in line and "left alone for 600 s" in line for line in log)
    assert KEY not in "".join(log)


def html(status: int) -> Behaviour:
    page = b"<html><body><h1>Maintenance</h1></body></html>"
    return lambda _: Reply(status, page, {"content-type": "text/html"})


def endless(_: Asked) -> Reply:
    return Reply(200, b" " * 3_000_000, {"content-type": "application/json"})


def zipped(_: Asked) -> Reply:
    return Reply(200, b"\x1f\x8b", {"content-type": "application/json", "content-encoding": "gzip"})


PASSING: dict[str, tuple[Behaviour, str]] = {
    "429": (error(429), "rate_limit"),
    "500": (error(500), "server"),
    "503": (error(503), "server"),
    "529": (error(529), "server"),
    "408": (error(408), "server"),
    "HTML with 502": (html(502), "server"),
    "HTML with 200": (html(200), "malformed"),
    "broken JSON": (lambda _: Reply(200, b'{"id": "c1', {"content-type": "application/json"}), "malformed"),
    "empty body": (lambda _: Reply(200, b"", {"content-type": "application/json"}), "malformed"),
    "another shape": (lambda _: reply({"hello": ["world"]}), "malformed"),
    "null": (lambda _: reply(None), "malformed"),
    "a number": (lambda _: reply(7), "malformed"),
    "an endless body": (endless, "connection"),
    "a compressed body": (zipped, "connection"),
}


@both_protocols
@pytest.mark.parametrize(("behaviour", "reason"), PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again_after_a_while(
    bench: Opener, llm: FakeLlm, model: str, behaviour: Behaviour, reason: str
) -> None:
    llm.script.extend([behaviour, behaviour])
    made = bench(model=model)
    assert made.engines(UP) == ["llm"]
    assert len(llm.asked) == 3
    assert made.time.slept == [0.375, 0.75]
    assert made.count("llm_requests_total", result=reason) == 2
    assert made.count("llm_requests_total", result="ok") == 1


@pytest.mark.parametrize(("behaviour", "reason"), PASSING.values(), ids=PASSING)
def test_what_does_not_pass_falls_back_without_a_split(
    bench: Opener, llm: FakeLlm, behaviour: Behaviour, reason: str
) -> None:
    llm.otherwise = behaviour
    made = bench(retries=1)
    assert made.engines(UP, DOWN) == ["embedded", "embedded"]
    assert len(llm.asked) == 2
    assert made.count("llm_fallbacks_total", reason=reason) == 2


@both_protocols
def test_retry_after_is_honoured(bench: Opener, llm: FakeLlm, model: str) -> None:
    llm.script.append(error(429, retry_after="7"))
    made = bench(model=model)
    assert made.engines(UP) == ["llm"]
    assert made.time.slept == [7.0]


def test_a_wait_longer_than_the_round_is_not_waited_for_but_kept(
    bench: Opener, llm: FakeLlm, log: list[str]
) -> None:
    llm.script.append(error(429, retry_after="300"))
    made = bench()
    assert made.engines(UP) == ["embedded"]
    assert made.time.slept == []
    made.time.now_s += 290
    assert made.engines(UP) == ["embedded"]
    made.time.now_s += 11
    assert made.engines(UP) == ["llm"]
    assert len(llm.asked) == 2
    assert any("left alone for 300 s" in line for line in log)


def test_a_redirect_is_not_followed(bench: Opener, llm: FakeLlm) -> None:
    llm.otherwise = error(307, location=f"{llm.url}/elsewhere")
    assert bench(retries=0).engines(UP) == ["embedded"]
    assert [asked.path for asked in llm.asked] == ["/v1/chat/completions"]


def slow(asked: Asked) -> Reply:
    return Reply(200, honest(asked).body, {"content-type": "application/json"}, wait_s=5)


def dripping(asked: Asked) -> Reply:
    return Reply(200, honest(asked).body, {"content-type": "application/json"}, drip_s=0.05)


@both_protocols
@pytest.mark.parametrize("behaviour", [slow, dripping])
def test_a_slow_answer_times_out(bench: Opener, llm: FakeLlm, model: str, behaviour: Behaviour) -> None:
    llm.otherwise = behaviour
    made = bench(model=model, timeout_s=0.2, retries=1)
    assert made.engines(UP) == ["embedded"]
    assert made.count("llm_fallbacks_total", reason="timeout") == 1
    assert len(llm.asked) == 2


def test_no_request_begins_after_the_deadline_of_a_round(bench: Opener, llm: FakeLlm) -> None:
    made = bench(retries=5, deadline_s=4, breaker_failures=100)
    seconds = count()

    def failing(asked: Asked) -> Reply:
        made.time.now_s += 1.0
        next(seconds)
        return error(500)(asked)

    llm.otherwise = failing
    begun_s = made.time.now_s
    assert made.engines(UP) == ["embedded"]
    assert made.time.now_s - begun_s <= 4 + 1
    assert len(llm.asked) < 6


def test_a_server_that_is_away_falls_back(bench: Opener) -> None:
    made = bench(base_url="http://127.0.0.1:9/v1", retries=1)
    assert made.engines(UP) == ["embedded"]
    assert made.count("llm_requests_total", result="connection") == 2
