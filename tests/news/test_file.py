"""Files of news: what is read, what is refused, and in which order and at which times it is played."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import SourceError
from services.news import file_rows
from services.news.contract import Bad, Item
from services.news.settings import NewsSettings
from services.news.sources.file import FileSource, file_identity
from services.news.times import NotATimeError, WrongUnitError, parse_time
from tests.news.support import T0_MS, Runner, now_ms

HEADER = "title,published\n"


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def make(path: Path, now: int | None = None, **values: str) -> FileSource:
    environ = {"SOURCES": "file", "FILE_PATH": str(path), "STATE_DIR": str(path.parent / "state")} | values
    options = NewsSettings.load({f"NEWS_{name}": value for name, value in environ.items()})
    return FileSource(options, (lambda: now) if now is not None else now_ms)


def play(path: Path, **values: Any) -> tuple[list[Item], list[Bad]]:
    """Everything in a file."""
    source = make(path, **values)
    items: list[Item] = []
    bad: list[Bad] = []
    cursor = None
    while True:
        poll = source.poll(cursor)
        items += poll.items
        bad += poll.bad
        cursor = poll.cursor
        if poll.ended:
            return items, bad


def refuses(path: Path, words: str, **values: Any) -> None:
    with pytest.raises(SourceError, match=words):
        play(path, **values)
    assert not list((path.parent / "state").rglob("sorting*"))


@pytest.mark.parametrize("name", ["news.csv", "news.csv.gz"])
def test_a_csv_is_read_with_quotes_line_ends_and_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    text = (
        "\ufeffid,Title,Text,Link,Outlet,Coins,Date\r\n"
        '1,"Bitcoin, up","<p>Two\r\nlines</p>",https://a.example/1,CoinDesk,"BTC, eth",'
        "2026-07-07T12:00:00Z\r\n"
        "\r\n"
        "2,Ether down,,,,,1783425700000\r\n"
    )
    columns = "id=id,title=Title,body=Text,url=Link,source=Outlet,coins=Coins,published=Date"
    (first, second), bad = play(write(tmp_path / name, text), FILE_COLUMNS=columns)
    assert bad == []
    assert first == Item(
        "file",
        "1",
        "CoinDesk",
        "Bitcoin, up",
        "Two lines",
        "https://a.example/1",
        ("BTC", "ETH"),
        T0_MS,
        T0_MS + 60_000,
    )
    assert (second.source, second.coins, second.published_at_ms) == ("file", (), T0_MS + 100_000)


@pytest.mark.parametrize("name", ["news.ndjson", "news.ndjson.gz", "news.jsonl"])
def test_lines_of_json_are_read(tmp_path: Path, name: str) -> None:
    lines = [
        {"title": "Bitcoin", "published": T0_MS, "coins": ["BTC", 7, "no coin!"]},
        {"title": "Ether", "published": float(T0_MS)},
    ]
    text = "\ufeff" + "\r\n".join(map(json.dumps, lines)) + "\n\n"
    (first, second), bad = play(write(tmp_path / name, text))
    assert (first.coins, second.published_at_ms, bad) == (("BTC",), T0_MS, [])


def test_rows_are_played_by_observed_time_and_rows_of_one_time_in_order(tmp_path: Path) -> None:
    text = "title,published,observed\n" + "".join(
        f"{name},{T0_MS},{T0_MS + after}\n" for name, after in (("c", 3), ("a1", 1), ("b", 2), ("a2", 1))
    )
    items, _ = play(write(tmp_path / "n.csv", text))
    assert [item.title for item in items] == ["a1", "a2", "b", "c"]
    assert [item.observed_at_ms for item in items] == [T0_MS + after for after in (1, 1, 2, 3)]


def test_what_was_published_on_a_day_counts_as_seen_after_it(tmp_path: Path) -> None:
    """A date without a time must not let anybody see the evening's news in the morning."""
    (item,), _ = play(write(tmp_path / "n.csv", HEADER + "Bitcoin,2026-07-07\n"), FILE_DELAY_S="5")
    midnight = T0_MS - 12 * 3_600_000
    assert (item.published_at_ms, item.observed_at_ms) == (midnight, midnight + 86_400_000 - 1 + 5_000)


def test_bad_rows_are_dead_letters_and_the_others_go_on(tmp_path: Path) -> None:
    rows = [
        "good,2026-07-07T12:00:00",
        "no date,",
        "odd date,yesterday",
        "too,many,cells",
        "few",
        "caf\udce9,2026-07-07T12:00:00",
        ",2026-07-07T12:00:00",
        "also good,2026-07-07 12:00:01+00:00",
    ]
    text = (HEADER + "\n".join(rows) + "\n").encode("utf-8", "surrogateescape")
    items, bad = play(write(tmp_path / "n.csv", text))
    assert [item.title for item in items] == ["good", "also good"]
    assert [one.error.reason for one in bad] == [
        "missing_date",
        "missing_date",
        "bad_row",
        "bad_row",
        "bad_row",
    ]
    assert "row 2" in bad[0].error.detail
    assert json.loads(bad[1].raw) == {"title": "odd date", "published": "yesterday"}
    assert bad[2].raw == b"too,many,cells"


def test_bad_lines_of_json_are_dead_letters(tmp_path: Path) -> None:
    good = json.dumps({"title": "Bitcoin", "published": T0_MS}).encode()
    lines = [
        good,
        b"{",
        b"[1]",
        b"\xff",
        b"[" * 50_000,
        b'{"title": "x", "published": {"at": 1}}',
        b'{"title": 7}',
        good,
    ]
    items, bad = play(write(tmp_path / "n.ndjson", b"\n".join(lines)))
    assert (len(items), len(bad)) == (2, 6)


def test_a_mapped_observed_time_in_the_future_is_refused(tmp_path: Path) -> None:
    text = f"title,published,observed\nx,{T0_MS},{T0_MS + 3_600_000}\n"
    items, bad = play(write(tmp_path / "n.csv", text), now=T0_MS)
    assert (items, [one.error.reason for one in bad]) == ([], ["future_event"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("n.csv", "", "is empty"),
        ("n.csv", HEADER, "holds no news"),
        (
            "n.csv",
            "Title,Date\nx,2026-07-07\n",
            r"no column published, title; there are Date, Title; set NEWS_FILE_COLUMNS",
        ),
        ("n.csv", "title;published\nx;2026-07-07\n", "no column published, title"),
        ("n.ndjson", '{"headline": "x", "published": 1783425600000}\n', "no column title"),
        (
            "n.csv",
            HEADER + "x,1783425600\n",
            "row 1: 1783425600 is no epoch milliseconds.*multiply seconds by 1000",
        ),
        ("n.csv", HEADER + "x,1783425600000\ny,1783425600000000\n", "row 2: .* no epoch milliseconds"),
        (
            "n.ndjson",
            '{"title": "x", "published": 1783425600}\n',
            "row 1: 1783425600 is no epoch milliseconds",
        ),
        ("n.txt", "x", "of unknown kind"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_to_do(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    refuses(write(tmp_path / name, text), words)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    refuses(tmp_path / "n.csv", "no such file; set NEWS_FILE_PATH")


def test_a_mapped_column_must_exist_but_not_in_every_line_of_json(tmp_path: Path) -> None:
    path = write(
        tmp_path / "n.ndjson",
        f'{{"title": "a", "published": {T0_MS}}}\n{{"title": "b", "published": {T0_MS}, "t": "x"}}\n',
    )
    assert [item.body for item in play(path, FILE_COLUMNS="body=t")[0]] == ["", "x"]
    refuses(path, "no column u", FILE_COLUMNS="body=u")


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{random.random()},{T0_MS}\n" for _ in range(5_000))
    packed = gzip.compress((HEADER + rows).encode())
    path = tmp_path / "n.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    refuses(path, "ends early .after row [0-9]+.; copy it again")
    path.write_bytes(b"no gzip at all")
    refuses(path, "cannot be read")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_rows, "RATIO_FROM_BYTES", 100_000)
    line = f"x,{T0_MS}\n"
    refuses(write(tmp_path / "lines.csv.gz", HEADER + line * 60_000), "times its size")
    refuses(write(tmp_path / "big.csv", HEADER + line * 1_000), "more than 5000 bytes", FILE_MAX_BYTES="5000")
    monkeypatch.setattr(file_rows, "MAX_ROW_BYTES", 100_000)
    refuses(write(tmp_path / "n.ndjson", b" " * 200_000), "a line of more than 100000 bytes")
    refuses(write(tmp_path / "q.csv", HEADER + '"' + "x" * 200_000), "quotation mark left open")


def test_another_file_or_other_columns_are_another_replay(tmp_path: Path) -> None:
    path = write(tmp_path / "n.csv", HEADER)

    def identity(**values: str) -> str:
        environ = {"SOURCES": "file", "FILE_PATH": str(path)} | values
        return file_identity(NewsSettings.load({f"NEWS_{name}": value for name, value in environ.items()}))

    before = identity()
    assert identity() == before
    assert identity(FILE_DELAY_S="1") != before
    assert identity(FILE_COLUMNS="title=title") != before
    assert identity(FILE_SPEED="9") == before
    write(path, HEADER + "x,1\n")
    assert identity() != before


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(0, 30))
def test_a_replay_goes_on_anywhere_with_the_rest(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], at: int
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    rows = "".join(f"row {number},{T0_MS + time}\n" for number, time in enumerate(times))
    path = write(folder / "n.csv", HEADER + "no date,\n" + rows)
    items, _ = play(path)
    played = [(0, 1), *sorted((T0_MS + time + 60_000, number + 2) for number, time in enumerate(times))][:at]
    cursor = f'{{"at_ms":{played[-1][0]},"row":{played[-1][1]}}}' if played else None
    rest = make(path).poll(cursor)
    assert [item.title for item in rest.items] == [item.title for item in items][max(0, at - 1) :]
    assert len(rest.bad) == (at == 0)


def test_a_row_that_is_refused_no_more_moves_no_other(tmp_path: Path) -> None:
    """Its time was in the future when the replay began, and has come when it goes on."""
    path = write(tmp_path / "n.csv", HEADER + f"early,{T0_MS - 3}\nlater,{T0_MS - 2}\nahead,{T0_MS + 9}\n")
    first = make(path, T0_MS, FILE_DELAY_S="0").poll(None)
    assert [item.title for item in first.items] == ["early", "later"]
    assert [bad.error.reason for bad in first.bad] == ["future_event"]
    assert "row 3 is not observed before" in first.bad[0].error.detail
    cursor = f'{{"at_ms":{T0_MS - 3},"row":1}}'
    again = make(path, T0_MS + 60_000, FILE_DELAY_S="0").poll(cursor)
    assert [item.title for item in again.items] == ["later", "ahead"]


@pytest.mark.parametrize("cursor", ["7", "{}", "no json"])
def test_a_cursor_that_cannot_be_read_says_what_to_delete(tmp_path: Path, cursor: str) -> None:
    path = write(tmp_path / "n.csv", HEADER + f"a,{T0_MS}\n")
    with pytest.raises(SourceError, match=r"which row was last; delete .*file\*\.sqlite"):
        make(path).poll(cursor)


def test_a_paced_replay_keeps_the_distances(tmp_path: Path) -> None:
    rows = "".join(f"row {number},{T0_MS + number * 60_000}\n" for number in range(10))
    path = write(tmp_path / "n.csv", HEADER + rows)
    clock = 100.0
    environ = {"SOURCES": "file", "FILE_PATH": str(path), "STATE_DIR": str(tmp_path), "FILE_SPEED": "60"}
    options = NewsSettings.load({f"NEWS_{name}": value for name, value in environ.items()})
    source = FileSource(options, now_ms, lambda: clock)
    seen = []
    cursor = None
    while True:
        poll = source.poll(cursor)
        cursor = poll.cursor
        seen += [(round(clock), item.title) for item in poll.items]
        if poll.ended:
            break
        assert poll.wait_s is not None
        clock += poll.wait_s
    assert seen == [(100 + number, f"row {number}") for number in range(10)]


def test_the_same_file_gives_the_same_news(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = "".join(
        f"{rng.choice(['Bitcoin', 'Ether', 'Solana'])} {rng.choice(['up', 'down'])},"
        f"{T0_MS + rng.randrange(500) * 3_600_000},"
        f"{rng.choice('abc')},{rng.randrange(400)}\n"
        for _ in range(600)
    )
    path = write(tmp_path / "n.csv", "title,published,source,id\n" + rows)
    runs = []
    for name in ("one", "two"):
        with Runner(tmp_path / name, [make(path)], max_age_h=None) as runner:
            runner.wait()
        assert runner.error is None
        runs.append(runner.publisher.news())
    assert len(runs[0]) > 100
    assert runs[0] == runs[1]
    names = [(row.story_id, row.observed_at_ms) for row in runs[0]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (T0_MS, T0_MS), (str(T0_MS), T0_MS), (float(T0_MS), T0_MS), (f"{T0_MS}.0", T0_MS),
        ("2026-07-07T12:00:00Z", T0_MS),
        ("2026-07-07T14:00:00+02:00", T0_MS), ("2026-07-07 12:00:00", T0_MS),
        ("2026-07-07 12:00:00 UTC", T0_MS),
        ("2026-07-07T12:00:00.250", T0_MS + 250), (" 20260707T120000 ", T0_MS),
    ],
)  # fmt: skip
def test_times_are_read_as_they_are_written(value: object, ms: int) -> None:
    assert parse_time(value).ms == ms


@given(st.one_of(st.none(), st.booleans(), st.text(), st.floats(), st.integers(), st.lists(st.integers())))
def test_anything_is_a_time_or_a_named_error(value: object) -> None:
    try:
        at = parse_time(value)
    except (NotATimeError, WrongUnitError):
        return
    assert 0 <= at.ms <= at.latest_ms
