"""Which articles are the same telling or story: rules, and the registry against a model of them."""

import random
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import SourceError
from services.common.messages import encode
from services.common.news import News
from services.news.contract import Item, Poll
from services.news.identity import (
    HOUR_MS,
    Article,
    canonical_url,
    decide,
    item_key,
    new_story_id,
    normalised_title,
    title_key,
)
from services.news.registry import Registry
from tests.news.support import T0_MS, item, make_intake, rows_of

SAME_URLS = [
    "https://outlet.example/markets/btc-falls",
    "http://OUTLET.example/markets/btc-falls/",
    "https://www.outlet.example/markets/btc-falls?utm_source=rss&utm_medium=feed#comments",
    "https://m.outlet.example/markets/btc-falls?fbclid=abc",
    "https://amp.outlet.example:443/markets/btc-falls",
    "https://outlet.example/amp/markets/btc-falls",
    "https://outlet.example/markets/btc-falls/amp/",
    "https://outlet.example//markets/btc-falls?UTM_Campaign=x&gclid=1",
]


def test_addresses_of_one_article_are_one() -> None:
    assert {canonical_url(url) for url in SAME_URLS} == {"https://outlet.example/markets/btc-falls"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example/x", "https://b.example/x"),
        ("https://a.example/?p=1", "https://a.example/?p=2"),
        ("https://a.example/X", "https://a.example/x"),
        ("https://a.example:8443/x", "https://a.example/x"),
        ("https://news.example/amplify/x", "https://news.example/x"),
        ("https://mobile-news.example/x", "https://news.example/x"),
    ],
)
def test_addresses_of_different_articles_differ(one: str, other: str) -> None:
    assert canonical_url(one) != canonical_url(other)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "ftp://a.example/x",
        "javascript:alert(1)",
        "https://",
        "http://[bad/x",
        "https://a.example:port/",
    ],
)
def test_what_is_no_web_address_has_none(url: str | None) -> None:
    assert canonical_url(url) is None


@given(st.text(max_size=80), st.sampled_from(SAME_URLS))
def test_a_canonical_address_is_its_own_canonical_address(text: str, url: str) -> None:
    for candidate in (url, f"https://a.example/{text}", f"https://{text}", text):
        once = canonical_url(candidate)
        assert once is None or canonical_url(once) == once


@pytest.mark.parametrize(
    "title",
    [
        "Bitcoin’s Hash Rate Falls 5%",
        "Bitcoin's hash rate falls 5% - CoinDesk",
        "BITCOIN'S HASH RATE FALLS 5% | Decrypt",
        "  Bitcoin`s hash rate: falls 5%!  ",
        "Bitcoin's hash rate falls 5% — Bitcoin Magazine | Yahoo Finance",
        "Ｂitcoin's hash rate falls 5％",
    ],
)
def test_titles_in_the_same_words_are_one(title: str) -> None:
    assert normalised_title(title) == "bitcoin s hash rate falls 5"


def test_an_outlets_own_name_is_no_part_of_its_title_and_other_words_are() -> None:
    assert normalised_title("Ether up - My Blog", "my blog") == "ether up"
    assert normalised_title("Ether up - My Blog") == "ether up my blog"
    assert normalised_title("Bitcoin falls - analysts worry") == "bitcoin falls analysts worry"
    assert normalised_title("Decrypt") == "decrypt"


def test_titles_of_signs_alone_are_told_apart() -> None:
    assert normalised_title("🚀🚀") != normalised_title("🐻")


def test_a_story_id_is_of_the_words_and_the_day() -> None:
    noon = new_story_id("bitcoin rises", T0_MS)
    assert len(noon) == 16
    assert new_story_id("bitcoin rises", T0_MS + HOUR_MS) == noon
    assert new_story_id("bitcoin rises", T0_MS + 24 * HOUR_MS) != noon
    assert new_story_id("bitcoin falls", T0_MS) != noon
    # What others have computed from the same rule.
    assert noon == "b43f756a8aef93d8"


def test_an_article_is_remembered_by_its_source_and_its_id_or_address_or_title_and_day() -> None:
    assert item_key("s", "1", "https://a.example/x", "t", T0_MS) == "s|1"
    assert item_key("s", None, "https://a.example/x", "t", T0_MS) == "s|https://a.example/x"
    plain = item_key("s", None, None, "t", T0_MS)
    assert plain == item_key("s", None, None, "t", T0_MS + HOUR_MS)
    assert plain != item_key("s", None, None, "t", T0_MS + 24 * HOUR_MS)
    assert plain != item_key("other", None, None, "t", T0_MS)


def test_long_keys_are_remembered_by_their_hash() -> None:
    assert item_key("s", "x" * 198, None, "", T0_MS) == "s|" + "x" * 198
    assert len(item_key("s", "x" * 5_000, None, "", T0_MS)) == 71


class Model:
    """The rules once more, over a list."""

    def __init__(self) -> None:
        self.told: list[tuple[Article, str, int]] = []

    def is_told(self, article: Article, since_ms: int) -> bool:
        return any(
            at >= since_ms
            and (
                (old.feed, old.item) == (article.feed, article.item)
                or (article.url is not None and (old.url, old.source) == (article.url, article.source))
            )
            for old, _, at in self.told
        )

    def story_of(self, article: Article, since_ms: int) -> str | None:
        others = [
            (old, story) for old, story, at in self.told if old.source != article.source and at >= since_ms
        ]
        by_url = [story for old, story in others if old.url is not None and old.url == article.url]
        by_title = [story for old, story in others if old.title == article.title]
        return next(iter(by_url + by_title), None)

    def last_observed_ms(self, story_id: str, since_ms: int) -> int | None:
        return max((at for _, story, at in self.told if story == story_id and at >= since_ms), default=None)


def article_of(one: Item, at_ms: int) -> Article:
    url, words = canonical_url(one.url), normalised_title(one.title, one.source)
    key = item_key(one.source, one.item_id, url, words, one.published_at_ms)
    story = new_story_id(words, one.published_at_ms)
    return Article(one.feed, key, one.source, url, title_key(words), story, at_ms)


_feeds = st.sampled_from(["a", "b", "c"])
_messy = st.builds(
    lambda feed, number, title, page, hours: item(
        number,
        title,
        feed=feed,
        url=page and f"https://x.example/{page}",
        published_at_ms=T0_MS - hours * HOUR_MS,
    ),
    _feeds,
    st.one_of(st.none(), st.sampled_from("1234")),
    st.sampled_from(["Bitcoin rises", "Bitcoin Rises - CoinDesk", "Ether falls", "Solana stalls", "!!"]),
    st.one_of(st.none(), st.sampled_from("pqr")),
    # Old enough that a clock that goes back does not make them early.
    st.integers(9, 60),
)
_polls = st.lists(
    st.tuples(st.lists(_messy, max_size=6), st.integers(-1, 100), st.booleans()), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(_polls)
def test_the_registry_decides_as_the_rules_say_whatever_comes_and_across_restarts(
    polls: list[tuple[list[Item], int, bool]],
) -> None:
    model, wanted, got = Model(), [], []
    now = T0_MS
    with TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "r.sqlite", "live")
        for items, hours, restarts in polls:
            now += hours * HOUR_MS
            for one in items:
                article = article_of(one, now)
                telling = decide(article, model, 72 * HOUR_MS)
                if telling is not None:
                    model.told.append((article, telling.story_id, telling.observed_at_ms))
                    wanted.append((telling.story_id, one.source, telling.observed_at_ms))
            taken = make_intake(registry, max_age_h=None).take("a", Poll(now, None, items=items), None)
            got += [(row.story_id, row.source, row.observed_at_ms) for row in rows_of(taken.messages)]
            if restarts:
                registry.close()
                registry = Registry(Path(folder) / "r.sqlite", "live")
        left = rows_of(registry.unconfirmed())
        registry.close()
    assert got == wanted
    # Nothing was confirmed, so all of it would be sent again, word for word.
    assert [(row.story_id, row.source, row.observed_at_ms) for row in left] == wanted
    # Story and time name a telling.
    assert len({(story, at) for story, _, at in wanted}) == len(wanted)


@st.composite
def _world(draw: st.DrawFn) -> list[Item]:
    """Articles with an id and an address of their own; those of a story share its words and day."""
    articles = []
    for story in range(draw(st.integers(1, 6))):
        for feed in draw(st.sets(_feeds, min_size=1)):
            suffix = draw(st.sampled_from(["", " - CoinDesk", "!"]))
            at_ms = T0_MS - draw(st.integers(0, 11)) * HOUR_MS
            url = f"https://{feed}.example/{story}"
            articles.append(
                item(
                    f"{feed}{story}",
                    f"Story number {story}{suffix}",
                    feed=feed,
                    url=url,
                    published_at_ms=at_ms,
                )
            )
    return articles


@settings(max_examples=20, deadline=None)
@given(_world(), st.randoms(use_true_random=False))
def test_the_tellings_do_not_depend_on_order_repetition_or_restarts_of_looks(
    world: list[Item], rng: random.Random
) -> None:
    with TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "r.sqlite", "live")
        rows: list[News] = []
        seen: set[str | None] = set()
        at_ms = T0_MS
        while len(seen) < len(world):
            shown = rng.sample(world, rng.randint(1, len(world)))
            seen.update(one.item_id for one in shown)
            at_ms += rng.randint(0, HOUR_MS)
            rows += rows_of(make_intake(registry).take("a", Poll(at_ms, None, items=shown), None).messages)
            if rng.random() < 0.3:
                registry.close()
                registry = Registry(Path(folder) / "r.sqlite", "live")
        registry.close()
    tellings = [(row.story_id, row.source) for row in rows]
    wanted = {(new_story_id(normalised_title(one.title), one.published_at_ms), one.source) for one in world}
    assert sorted(tellings) == sorted(wanted)
    assert len({(row.story_id, row.observed_at_ms) for row in rows}) == len(rows)


def take(registry: Registry, *items: Item, at_ms: int = T0_MS, **options: object) -> list[News]:
    return rows_of(
        make_intake(registry, **options).take("a", Poll(at_ms, None, items=list(items)), None).messages
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "news" / "r.sqlite", "live")


def test_an_edited_article_is_told_once(registry: Registry) -> None:
    (first,) = take(registry, item("1", "Bitcoin rises", url="https://a.example/1"))
    assert take(registry, item("1", "Bitcoin soars (updated)", url="https://a.example/1-new")) == []
    # The same page under another id is the same telling too.
    assert take(registry, item("2", "Bitcoin soars", url="https://www.a.example/1/?utm_source=x")) == []
    registry.close()
    assert first.observed_at_ms == T0_MS


def test_articles_that_share_a_page_are_told_each_once(registry: Registry) -> None:
    page = "https://a.example/live"
    items = [item(f"g{n}", f"News {n}", url=f"{page}#p{n}", shares_page=True) for n in range(3)]
    assert len(take(registry, *items)) == 3
    assert take(registry, *items) == []
    registry.close()


def test_another_sources_telling_shares_the_story_and_comes_after_it(registry: Registry) -> None:
    rows = take(
        registry,
        item("1", "Bitcoin rises", url="https://a.example/1"),
        item("x", "Bitcoin Rises | Decrypt", feed="b", published_at_ms=T0_MS - 13 * HOUR_MS),
        item("y", "Other words", feed="c", url="https://a.example/1#top"),
        item("z", "Ether falls", feed="c"),
    )
    registry.close()
    assert [row.story_id == rows[0].story_id for row in rows] == [True, True, True, False]
    assert [row.observed_at_ms - T0_MS for row in rows] == [0, 1, 2, 0]


def test_the_same_words_after_the_window_are_a_new_story(registry: Registry) -> None:
    (first,) = take(registry, item("1"))
    later = T0_MS + 71 * HOUR_MS
    (within,) = take(registry, item("2", feed="b", published_at_ms=later), at_ms=later)
    much_later = later + 73 * HOUR_MS
    (after,) = take(registry, item("3", feed="c", published_at_ms=much_later), at_ms=much_later)
    registry.close()
    assert first.story_id == within.story_id != after.story_id


def test_a_column_of_the_same_name_is_a_new_story_each_day(registry: Registry) -> None:
    (monday,) = take(registry, item("1", "Markets today"))
    (tuesday,) = take(
        registry, item("2", "Markets today", published_at_ms=T0_MS + 24 * HOUR_MS), at_ms=T0_MS + 24 * HOUR_MS
    )
    registry.close()
    assert monday.story_id != tuesday.story_id


def test_a_clock_that_goes_back_does_not_turn_a_storys_order(registry: Registry) -> None:
    take(registry, item("1"))
    (second,) = take(registry, item("2", feed="b", published_at_ms=T0_MS - HOUR_MS), at_ms=T0_MS - 30_000)
    registry.close()
    assert second.observed_at_ms == T0_MS + 1


def test_an_article_that_was_forgotten_is_too_old_to_be_news(registry: Registry) -> None:
    old = item("1")
    take(registry, old)
    for hours in range(0, 400, 7):
        assert take(registry, old, at_ms=T0_MS + hours * HOUR_MS) == []
    registry.close()


def test_the_registry_forgets_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.news.registry.PRUNE_EVERY", 1)
    path = tmp_path / "r.sqlite"
    registry = Registry(path, "live")
    for day in range(20):
        at_ms = T0_MS + day * 24 * HOUR_MS
        take(registry, item(str(day), f"Story of day {day}", published_at_ms=at_ms), at_ms=at_ms)
    registry.close()
    with sqlite3.connect(path) as db:
        (count,) = db.execute("SELECT count(*) FROM told").fetchone()
    db.close()
    # 72 h and 48 h more, both ends included.
    assert count == 6


def test_the_registry_has_room_for_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.news.registry.PRUNE_EVERY", 1)
    registry = Registry(tmp_path / "r.sqlite", "live", max_rows=10)
    for number in range(50):
        take(registry, item(str(number), f"Story {number}"))
    assert take(registry, item("49", "Story 49"), item("41", "Story 41")) == []
    assert len(take(registry, item("5", "Story 5"))) == 1
    registry.close()


def test_a_decision_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "r.sqlite", "live")

    def fail() -> None:
        with registry.transaction():
            registry.put("news", b"k", b"v", T0_MS)
            registry.set_cursor("a", "5")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (registry.unconfirmed(), registry.cursor("a")) == ([], None)
    registry.close()


def test_only_what_was_not_confirmed_is_sent_again_in_its_order(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "r.sqlite", "live")
    with registry.transaction():
        sent = [registry.put("news", b"k", bytes([number]), T0_MS) for number in range(4)]
    registry.confirm([sent[2].id, sent[0].id])
    registry.close()
    again = Registry(tmp_path / "r.sqlite", "live")
    assert again.unconfirmed() == [sent[1], sent[3]]
    again.close()


def test_a_registry_about_something_else_begins_anew(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "r.sqlite", "file one")
    with registry.transaction():
        registry.set_cursor("file", "7")
    registry.close()
    again = Registry(tmp_path / "r.sqlite", "file two")
    assert again.cursor("file") is None
    again.close()


def test_a_registry_in_use_or_broken_is_refused_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.news.registry.BUSY_S", 0.05)
    path = tmp_path / "r.sqlite"
    registry = Registry(path, "live")
    with pytest.raises(SourceError, match=r"r\.sqlite.*another news service"):
        Registry(path, "live")
    registry.close()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SourceError, match="delete it"):
        Registry(path, "live")


def test_a_body_is_cut_until_its_message_fits(registry: Registry) -> None:
    (row,) = take(registry, item("1", body="é" * 20_000), max_message_bytes=12_000)
    registry.close()
    assert 1_000 < len(row.body) <= 5_000
    assert len(encode([row])) <= 11_000


def test_what_the_contract_refuses_is_a_dead_letter_once(registry: Registry) -> None:
    poll = Poll(T0_MS, None, items=[item("1", source="")])
    first = make_intake(registry).take("a", poll, None)
    again = make_intake(registry).take("a", poll, None)
    registry.close()
    assert [error.reason for error in first.refused] == ["bad_row"]
    assert [message.topic for message in first.messages] == ["dead_letters"]
    assert (again.messages, again.repeats) == ([], 1)


def test_an_article_dated_ahead_is_refused_until_its_time_has_come(registry: Registry) -> None:
    early = item("1", published_at_ms=T0_MS + 10 * 60_000)
    intake = make_intake(registry)
    first = intake.take("a", Poll(T0_MS, "etag", items=[early]), None)
    assert [error.reason for error in first.refused] == ["future_event"]
    letter = msgspec.json.decode(first.messages[0].value)[0]
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("news", -1, -1)
    # The feed does not count as read, or "not modified" would hide the article for good.
    assert registry.cursor("a") is None
    assert intake.take("a", Poll(T0_MS + 60_000, "etag", items=[early]), None).messages == []
    (row,) = rows_of(intake.take("a", Poll(T0_MS + 9 * 60_000, "etag", items=[early]), None).messages)
    assert row.observed_at_ms == T0_MS + 9 * 60_000
    assert registry.cursor("a") == "etag"
    registry.close()


def test_an_article_dated_far_ahead_does_not_keep_its_feed_from_counting_as_read(registry: Registry) -> None:
    wrong = item("1", published_at_ms=T0_MS + 25 * HOUR_MS)
    taken = make_intake(registry).take("a", Poll(T0_MS, "etag", items=[wrong]), None)
    assert [error.reason for error in taken.refused] == ["future_event"]
    assert registry.cursor("a") == "etag"
    registry.close()


def test_old_articles_of_a_new_feed_are_no_news(registry: Registry) -> None:
    taken = make_intake(registry, max_age_h=24).take(
        "a",
        Poll(T0_MS, None, items=[item("1", published_at_ms=T0_MS - 25 * HOUR_MS), item("2", "Ether falls")]),
        None,
    )
    registry.close()
    assert [row.title for row in rows_of(taken.messages)] == ["Ether falls"]
    assert taken.ignored == {"too_old": 1}
