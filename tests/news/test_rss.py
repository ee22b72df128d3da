"""Feeds: bytes in, articles out, and what no feed may do."""

import gzip
import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import SourceUnavailableError
from services.common.news import MAX_BODY_CHARS, MAX_TITLE_CHARS
from services.news.sources.rss import RssSource, parse_feed
from services.news.text import strip_html
from tests.news.support import DATA, T0_MS, Request, fetcher, rss, site

BOMB = (
    '<?xml version="1.0"{}?>'
    '<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<rss version='2.0'><channel><item><title>&b;</title><guid>1</guid>"
    "<pubDate>Tue, 07 Jul 2026 12:00:00 GMT</pubDate></item></channel></rss>"
)


def articles(name: str) -> list[Any]:
    return parse_feed(name, (DATA / f"{name}.xml").read_bytes()).items


def test_an_arc_feed_gives_the_whole_text_without_markup_and_scripts() -> None:
    first, second = articles("coindesk")
    assert first.item_id == "6b7c1c6e-5d1d-4f6f-9c55-000000000001"
    assert (first.feed, first.source) == ("coindesk", "coindesk")
    assert first.title == "Bitcoin’s Hash Rate Falls 5% as Miners Sell"
    assert first.body == "Miners sold coins on Tuesday. A farm Fees rose & fell."
    assert first.published_at_ms == 1_783_424_710_000
    assert (second.body, second.published_at_ms) == ("", 1_783_423_800_000)


def test_white_space_in_a_title_and_another_time_zone_are_understood() -> None:
    (article,) = articles("cointelegraph")
    assert article.title == "Bitcoin's hash rate falls 5% as miners sell"
    assert article.item_id == "https://outlet-b.example/news/hash-rate"
    assert article.published_at_ms == 1_783_425_000_000
    assert article.body == "Hash rate drops."


def test_a_wordpress_feed_with_a_doctype_inside_an_article_is_read() -> None:
    feed = parse_feed("decrypt", (DATA / "decrypt.xml").read_bytes())
    (article,) = feed.items
    assert article.title == "Solana ‘Memecoin’ Volume Doubles — Here’s Why"
    assert article.body == "Volume doubled. Twice. An embedded page is only text here."
    assert feed.ignored == {"empty_text": 1}
    assert [(bad.item_id, bad.error.reason) for bad in feed.bad] == [
        ("https://outlet-c.example/?p=34569", "missing_date"),
        ("https://outlet-c.example/?p=34570", "missing_date"),
    ]
    assert json.loads(feed.bad[1].raw)["date"] == "yesterday, about noon"


def test_escaped_titles_and_numeric_guids_are_read() -> None:
    (article,) = articles("theblock")
    assert (article.item_id, article.title) == ("301", "Exchange X lists AT&T token")


def test_a_feed_in_latin_1_is_read() -> None:
    (article,) = articles("bitcoinmagazine")
    assert article.title == "Café accepts bitcoin"


def test_an_atom_feed_gives_published_before_updated() -> None:
    first, second = articles("blockworks")
    assert first.published_at_ms == 1_783_422_000_250
    assert first.title == "Lending protocol drained of $4M | Outlet F"
    assert first.body == "An attacker drained the protocol on Tuesday."
    assert first.url == "https://outlet-f.example/news/drained"
    assert second.published_at_ms == 1_783_404_000_000


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_a_feed_is_read_in_any_unicode_and_an_entity_bomb_in_none(encoding: str) -> None:
    text = rss(("1", "Naïve Bitcoin ₿", T0_MS)).decode()
    assert parse_feed("x", text.encode(encoding)).items[0].title == "Naïve Bitcoin ₿"
    with pytest.raises(SourceUnavailableError, match="DOCTYPE"):
        parse_feed("x", BOMB.format("").encode(encoding))


@pytest.mark.parametrize("encoding", ["iso-8859-12", "iso-8859-99", "windows-1259", "cp1259", "latin1"])
def test_an_encoding_that_there_is_not_costs_the_feed_a_sign_at_most(encoding: str) -> None:
    body = rss(("1", "Na\xefve Bitcoin", T0_MS)).decode().encode("latin-1")
    declared = body.replace(b"version='1.0'", f'version="1.0" encoding="{encoding}"'.encode())
    for document, charset in ((declared, None), (body, encoding)):
        (article,) = parse_feed("x", document, charset).items
        assert article.title in ("Na\xefve Bitcoin", "Na\ufffdve Bitcoin")


@pytest.mark.parametrize("encoding", ["utf-7", "cp037", "utf-16", "hz", "iso-2022-jp"])
def test_a_bomb_hidden_by_an_encoding_is_refused_or_harmless(encoding: str) -> None:
    body = BOMB.format(f' encoding="{encoding}"').encode(encoding)
    for charset in (None, encoding):
        try:
            found = parse_feed("x", body, charset).items
        except SourceUnavailableError:
            continue
        assert all("aaaa" not in article.title for article in found)


@pytest.mark.parametrize(
    "before",
    [
        "",
        "\n\n",
        "<!-- <rss> -->",
        "<?xml-stylesheet href='x'?>",
        "<!-- a --><!-- <!-- --> \n<?a b?>",
        "\ufeff",
    ],
)
def test_a_declaration_is_found_behind_whatever_may_stand_before_it(before: str) -> None:
    document = rss(("1", "t", T0_MS)).decode().partition("?>")[2]
    assert parse_feed("x", (before + document).encode()).items
    for doctype in ("<!DOCTYPE rss SYSTEM 'file:///etc/passwd'>", "<!doctype rss []>", "<!ENTITY a 'b'>"):
        with pytest.raises(SourceUnavailableError, match="DOCTYPE"):
            parse_feed("x", (before + doctype + document).encode())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html><html><body>Just a moment...</body></html>", "an HTML page"),
        (b"<html><body>Just a moment...</body></html>", "no feed"),
        (b"", "no XML"),
        (b"Not Found", "no XML"),
        (b'{"error": "x"}', "no XML"),
        # What the parser would take for an address or a path.
        (b"http://127.0.0.1:9/x", "no XML"),
        (b"/etc/passwd", "no XML"),
    ],
)
def test_what_is_no_feed_is_refused_in_words(body: bytes, words: str) -> None:
    with pytest.raises(SourceUnavailableError, match=words):
        parse_feed("x", body)


def test_a_broken_document_gives_what_can_be_read_and_does_not_count_as_whole() -> None:
    body = rss(("1", "AT&T and Bitcoin", T0_MS), ("2", "Ether", T0_MS))
    feed = parse_feed("x", body)
    assert [article.item_id for article in feed.items] == ["1", "2"]
    assert not feed.is_whole
    assert parse_feed("x", rss(("1", "Bitcoin", T0_MS))).is_whole


def test_long_texts_are_cut_and_long_feeds_too() -> None:
    articles = [(str(number), "word " * 500, T0_MS) for number in range(3)]
    assert {len(article.title) for article in parse_feed("x", rss(*articles)).items} == {MAX_TITLE_CHARS - 1}
    long = rss(("1", "t", T0_MS)).replace(b"Text of 1.", b"x" * 1_000_000)
    assert len(parse_feed("x", long).items[0].body) == MAX_BODY_CHARS
    many = parse_feed("x", rss(*((str(number), "t", T0_MS) for number in range(1_003))))
    assert (len(many.items), many.ignored) == (1_000, {"beyond_limit": 3})


def test_an_article_without_a_title_is_called_by_its_beginning() -> None:
    assert parse_feed("x", rss(("7", "", T0_MS))).items[0].title == "Text of 7."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Is ETH<BTC after the merge?", "Is ETH<BTC after the merge?"),
        ("ETH<BTC? Bitcoin &amp; <b>Ether</b> <SOL", "ETH<BTC? Bitcoin & Ether <SOL"),
        ("Gas <5 gwei, fees <$1", "Gas <5 gwei, fees <$1"),
        ("The rest is cut <a href='https://a.ex", "The rest is cut"),
        ("<p>One</p><p>Two <i>three</i>", "One Two three"),
    ],
)
def test_a_sign_that_begins_no_tag_stays(text: str, words: str) -> None:
    assert strip_html(text) == words


@given(st.text(max_size=300))
def test_stripped_text_is_one_line_without_control_characters(text: str) -> None:
    found = strip_html(text)
    assert found == " ".join(found.split())
    assert all(ord(char) >= 32 and not 0xD800 <= ord(char) < 0xE000 for char in found)


def test_headlines_of_one_page_are_told_apart_by_their_ids() -> None:
    """As in a live blog, or where every link leads to the home page."""
    links = "".join(
        f"<item><guid>g{at}</guid><title>{title}</title><link>https://x.example/live#p{at}</link>"
        f"<pubDate>{formatdate(T0_MS / 1000)}</pubDate></item>"
        for at, title in enumerate(("Bitcoin breaks a record", "Ether fund approved", "Solana halts"))
    )
    body = f"<rss version='2.0'><channel><title>t</title>{links}</channel></rss>".encode()
    assert [article.shares_page for article in parse_feed("x", body).items] == [True] * 3
    alone = rss(("1", "Bitcoin", T0_MS), ("2", "Ether", T0_MS))
    assert [article.shares_page for article in parse_feed("x", alone).items] == [False] * 2


@given(st.binary(max_size=300))
def test_any_bytes_are_a_feed_or_a_named_error(body: bytes) -> None:
    for document in (body, b"<rss version='2.0'><channel><item>" + body):
        try:
            parse_feed("x", document)
        except SourceUnavailableError:
            continue


GOOD = rss(("1", "Bitcoin rises", T0_MS), ("2", "Ether falls", T0_MS))


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 40), st.binary(max_size=40)), max_size=4),
)
def test_a_feed_that_was_damaged_anywhere_is_a_feed_or_a_named_error(
    damages: list[tuple[int, int, bytes]],
) -> None:
    body = GOOD
    for at, length, instead in damages:
        body = body[:at] + instead + body[at + length :]
    try:
        parse_feed("x", body)
    except SourceUnavailableError:
        return


@pytest.mark.parametrize(
    "number", ["#xD800", "#xDFFF", "#99999999999", "#x110000", "#0", "#xFFFFFFFFFFFFFFF"]
)
def test_a_number_that_is_no_character_costs_one_character(number: str) -> None:
    for reference in (f"&{number};", f"&amp;{number};"):
        body = GOOD.replace(b"rises", b"rises " + reference.encode() + b" today")
        feed = parse_feed("x", body)
        assert [item.title for item in feed.items] == ["Bitcoin rises \ufffd today", "Ether falls"]


@pytest.mark.parametrize(
    "date",
    [
        "Tue, 07 Jul 0000 12:00:00 GMT",
        "Tue, 07 Jul 10000 12:00:00 GMT",
        "0000-00-00T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "1066-10-14T09:00:00Z",
        "Tue, 99 Jul 2026 99:99:99 GMT",
        "9" * 400,
        "yesterday",
    ],
)
def test_a_date_that_is_none_costs_its_article_only(date: str) -> None:
    body = rss(("1", "Bitcoin", T0_MS), ("2", "Ether", T0_MS))
    first = body.index(b"<pubDate>") + len(b"<pubDate>")
    feed = parse_feed("x", body[:first] + date.encode() + body[body.index(b"</pubDate>") :])
    assert [item.title for item in feed.items] == ["Ether"]
    assert [(bad.error.reason, bad.item_id) for bad in feed.bad] == [("missing_date", "1")]
    assert "'Bitcoin'" in feed.bad[0].error.detail


@pytest.mark.parametrize(
    ("junk", "count", "words"),
    [
        ("<a/>", 200_001, "more than 200,000 tags"),
        ("<item/>", 20_001, "more than 20,000 articles"),
        ("&", 1_000_001, "not well-formed"),
        ("<item " + " ".join(f"a{n}='1'" for n in range(1_100)) + "/>", 1, "attributes"),
    ],
)
def test_what_is_too_much_for_a_feed_is_refused_soon(junk: str, count: int, words: str) -> None:
    began = time.thread_time()
    with pytest.raises(SourceUnavailableError, match=words):
        parse_feed("x", b"<rss version='2.0'><channel>" + junk.encode() * count + b"</channel></rss>")
    assert time.thread_time() - began < 6


def source(url: str, **limits: Any) -> RssSource:
    return RssSource("x", url, 60, fetcher(**limits), lambda: T0_MS)


def test_a_feed_is_asked_with_what_it_said_before_and_may_answer_not_modified() -> None:
    def play(request: Request) -> None:
        if request.headers["If-None-Match"] == '"v1"' and request.headers["If-Modified-Since"] == "then":
            request.answer(status=304)
        else:
            request.answer(rss(("1", "Bitcoin", T0_MS)), ETag='"v1"', Last_Modified="then")

    with site(play) as here:
        first = source(here.url).poll(None)
        second = source(here.url).poll(first.cursor)
        # Another address under the same name has another past.
        third = source(here.url + "/other").poll(second.cursor)
    assert [len(poll.items) for poll in (first, second, third)] == [1, 0, 1]
    assert second.not_modified
    assert second.cursor == first.cursor
    assert here.requests[0].headers["User-Agent"] == "crypto-price-predictor/test"
    assert here.requests[0].headers["Accept-Encoding"] == "gzip"


def test_a_broken_document_is_asked_for_again_whole() -> None:
    with site(lambda request: request.answer(rss(("1", "A & B", T0_MS)), ETag='"v1"')) as here:
        poll = source(here.url).poll(None)
        source(here.url).poll(poll.cursor)
    assert here.requests[1].headers["If-None-Match"] is None


@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500, 503])
def test_a_refusal_is_an_error_that_says_when_to_come_back(status: int) -> None:
    with (
        site(lambda request: request.answer(b"no", status, Retry_After="17")) as here,
        pytest.raises(SourceUnavailableError, match=f"HTTP {status}") as caught,
    ):
        source(here.url).poll(None)
    assert caught.value.retry_after_s == 17


def test_a_packed_feed_is_read() -> None:
    body = gzip.compress(rss(("1", "Bitcoin", T0_MS)))
    with site(lambda request: request.answer(body, Content_Encoding="gzip")) as here:
        assert [article.title for article in source(here.url).poll(None).items] == ["Bitcoin"]


def test_hostile_markup_costs_seconds_at_most() -> None:
    began = time.monotonic()
    for junk in ("<", "<a ", "<!--", "</", "<![CDATA[", "<?", "<item>", "&#", "<a b='", "<item><title>&lt;"):
        parse_feed("x", b"<rss version='2.0'><channel>" + junk.encode() * 5_000)
        strip_html(junk * 20_000)
    assert time.monotonic() - began < 15
