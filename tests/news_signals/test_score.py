"""Headlines scored from Python and from the command line."""

import csv
import io
from pathlib import Path

import pytest

from services.common.errors import SettingsError
from services.news_signals import score_headlines
from services.news_signals.engines.contract import OVERALL, Story
from services.news_signals.score import main
from tests.news_signals import fake_engine
from tests.news_signals.fake_engine import opinion

TEXT = "Bitcoin Rallies as Ether Slips"


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    from services.news_signals import engines

    monkeypatch.setattr(engines, "REGISTRY", dict(engines.REGISTRY))
    fake_engine.choose()


def test_a_headline_is_scored_for_each_coin_and_as_a_whole() -> None:
    (scored,) = score_headlines([TEXT])
    assert scored.text == TEXT
    assert list(scored.coins) == ["BTC", "ETH"]
    wanted = opinion(Story(TEXT, "", ()), OVERALL)
    assert (scored.overall.p_pos, scored.overall.signal) == (wanted.p_pos, wanted.signal)
    assert scored.overall.label == ("negative", "neutral", "positive")[wanted.signal + 1]
    assert scored.coins["ETH"].score == opinion(Story(TEXT, "", ()), "ETH").score
    assert scored.coins["BTC"].relevance > scored.coins["ETH"].relevance


def test_headlines_keep_their_order_however_many_there_are() -> None:
    texts = [f"Bitcoin story {number}" for number in range(50)]
    assert [scored.text for scored in score_headlines(texts)] == texts


def test_a_text_alone_is_one_headline() -> None:
    assert [scored.text for scored in score_headlines(TEXT)] == [TEXT]


def test_a_headline_without_coins_still_has_a_score_as_a_whole() -> None:
    (scored,) = score_headlines(["Local bakery wins prize"])
    assert scored.coins == {}
    assert scored.overall.engine == "fake"


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown engine"):
        score_headlines([TEXT], engine="oracle")


def test_the_command_shows_each_coin_and_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TEXT.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == TEXT
    assert [line.split()[0] for line in lines[1:]] == ["BTC", "ETH", "overall"]


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("h.txt", f"\ufeff{TEXT}\n\n  \nDogecoin Dips\n", []),
        ("h.csv", f'date,title\n2024,"{TEXT}"\n2025,Dogecoin Dips\n2026,\n', []),
        ("h.csv", f"{'mine'}\n{TEXT}\r\nDogecoin Dips\r\n", ["--column", "mine"]),
        ("h.ndjson", f'{{"headline": "{TEXT}"}}\n\n{{"text": "Dogecoin Dips", "n": 1}}\n', []),
    ],
)
def test_the_command_reads_files_and_writes_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, options: list[str]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert main(["--csv", "--file", str(path), *options]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["text"], row["coin"]) for row in rows] == [
        (TEXT, "BTC"), (TEXT, "ETH"), (TEXT, "overall"),
        ("Dogecoin Dips", "DOGE"), ("Dogecoin Dips", "overall"),
    ]  # fmt: skip
    assert all(-1 <= float(row["score"]) <= 1 for row in rows)


def test_the_command_reads_lines_of_the_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{TEXT}\n".encode())))
    assert main([]) == 0
    assert capsys.readouterr().out.startswith(TEXT)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("h.csv", "a,b\n1,2\n", "no column title or headline or text"),
        ("h.ndjson", '{"title": "x"}\nno json\n', "line 2: no JSON"),
        ("h.ndjson", '{"title": 7}\n', "line 1: no text in title"),
        ("h.txt", None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, complaint: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    assert main(["--file", str(path)]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stdin", "arguments", "complaint"),
    [
        (None, [], "the standard input is closed"),
        (io.TextIOWrapper(io.BytesIO(b"Bitcoin \xff\n")), [], "standard input cannot be read"),
        (None, [" "], "the headline is empty"),
    ],
)
def test_no_headline_to_read_is_said(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stdin: io.TextIOWrapper | None,
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(arguments) == 1
    assert complaint in capsys.readouterr().err


def test_a_headline_and_a_file_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([TEXT, "--file", "h.txt"])
    assert "not both" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout.write", full)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr.close", lambda: None)
        assert main([TEXT]) == 0
    assert capsys.readouterr().err == ""


def test_wrong_settings_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWS_SIGNALS_BATHC", "3")
    assert main([TEXT]) == 2
    assert "did you mean NEWS_SIGNALS_BATCH?" in capsys.readouterr().err
