"""How coins share a story."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.news_signals.judge import LEAD_CHARS
from services.news_signals.relevance import HINT, LEAD, REST, TITLE, WEIGHT, Standing, relevances, standings
from tests.news_signals.support import FINDER

standing = st.builds(
    Standing, st.sampled_from((TITLE, LEAD, REST)), st.floats(0, 1), st.integers(1, 200), st.booleans()
) | st.just(Standing(HINT))
shares = st.dictionaries(st.sampled_from([f"C{n}" for n in range(30)]), standing, min_size=1)


def of(title: str, body: str = "", hints: tuple[str, ...] = ()) -> dict[str, float]:
    return relevances(standings(FINDER.find(title, body, hints), title, body))


@given(shares)
def test_relevances_are_above_0_and_add_up_to_at_most_1(coins: dict[str, Standing]) -> None:
    found = relevances(coins)
    assert found.keys() == coins.keys()
    assert all(0 < relevance <= 1 for relevance in found.values())
    assert sum(found.values()) <= 1 + 1e-9


@given(shares, st.randoms())
def test_the_order_of_the_coins_does_not_show(coins: dict[str, Standing], rng: object) -> None:
    names = list(coins)
    rng.shuffle(names)  # type: ignore[attr-defined]
    assert relevances({name: coins[name] for name in names}) == relevances(coins)


@given(shares, st.data())
def test_a_better_standing_is_never_worth_less(coins: dict[str, Standing], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(coins)))
    coin = coins[name]
    better = [
        replace(coin, depth=coin.depth / 2),
        replace(coin, count=coin.count + 1),
        replace(coin, hinted=True),
    ]
    for other in better:
        assert relevances(coins | {name: other})[name] >= relevances(coins)[name] * (1 - 1e-12)


@given(standing)
def test_a_better_place_is_worth_more_at_the_same_standing(coin: Standing) -> None:
    others = {"OTHER": Standing(LEAD)}
    found = [relevances({"C": replace(coin, place=p)} | others)["C"] for p in (TITLE, LEAD, REST, HINT)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


@given(shares, standing)
def test_one_more_coin_takes_from_the_others(coins: dict[str, Standing], more: Standing) -> None:
    before, after = relevances(coins), relevances(coins | {"MORE": more})
    assert all(after[name] <= before[name] * (1 + 1e-9) for name in coins)


@pytest.mark.parametrize("place", [TITLE, LEAD, REST, HINT])
def test_a_coin_alone_has_what_its_place_weighs(place: int) -> None:
    assert relevances({"BTC": Standing(place)}) == {"BTC": WEIGHT[place]}
    assert relevances({"BTC": Standing(place, hinted=True)}) == {
        "BTC": min(1, Standing(place, hinted=True).weight)
    }


def test_a_story_without_coins_has_none() -> None:
    assert of("Local bakery wins prize") == {}


def test_the_title_goes_before_the_lead_before_the_rest_before_a_hint() -> None:
    body = "Ethereum fees fell. " + "Nothing happened. " * 30 + "Monero too."
    assert body.index("Monero") > LEAD_CHARS
    found = of("Bitcoin slips", body, ("DOGE",))
    assert list(found) == ["BTC", "ETH", "XMR", "DOGE"]
    values = list(found.values())
    assert values == sorted(values, reverse=True)
    assert found["BTC"] > 0.6
    assert found["DOGE"] < 0.04


def test_the_coin_named_first_is_a_little_more_relevant() -> None:
    found = of("Bitcoin and Ether Climb")
    assert 0.5 < found["BTC"] < 0.55
    assert found["ETH"] == pytest.approx(1 - found["BTC"])


def test_a_coin_that_the_source_names_too_is_more_certain() -> None:
    assert of("Bitcoin and Ether Climb", hints=("ETH",))["ETH"] > of("Bitcoin and Ether Climb")["ETH"]
    assert of("Local bakery wins prize", hints=("ETH",)) == {"ETH": WEIGHT[HINT]}
