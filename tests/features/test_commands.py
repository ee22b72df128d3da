"""The command lines, the notebook, the settings and the wiring."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from loguru import logger

from services.common.columns import Column
from services.common.errors import SettingsError
from services.common.health import Health
from services.common.metrics import Metrics
from services.common.runner import Context
from services.common.settings import BrokerSettings
from services.features import export, pipeline, query
from services.features.description import age
from services.features.groups import TA
from services.features.sentiment import SentimentWriter
from services.features.settings import FeaturesSettings
from services.features.stores.sqlite_reader import SqliteReader
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples

ROOT = Path(__file__).parents[2]


@pytest.fixture
def filled(path: Path) -> Path:
    with make_store(path) as store:
        for pair in ("BTC/USD", "ETH/USD"):
            rows = [
                ta_row(i, pair=pair, close=100.0 + i % 3, rsi_14=50.0 + i % 7, log_return_1=0.01 * (i % 3))
                for i in range(150)
            ]
            store.write(TA, tuples(rows))
        store.write(TA, tuples([ta_row(0, timeframe="1h"), ta_row(1, timeframe="1h", closed=False)]))
    return path


def test_query_prints_the_newest_vector_of_each_series(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert query.main(["--store", str(filled)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["exchange", "pair", "timeframe", "end", "(UTC)", "close", "rsi_14"]
    assert [line.split()[:3] for line in lines] == [
        ["kraken", "BTC/USD", "1h"],
        ["kraken", "BTC/USD", "1m"],
        ["kraken", "ETH/USD", "1m"],
    ]
    assert "open" in lines[0]
    assert "2024-01-01 02:30:00" in lines[1]


def test_query_of_one_series_prints_its_newest_rows_first(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--store", str(filled), "--pair", "BTC/USD", "--timeframe", "1m", "--limit", "3"]
    assert query.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines[1:]] == ["02:30:00", "02:29:00", "02:28:00"]


def test_query_of_a_pair_on_several_exchanges_wants_one_named(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with make_store(filled) as store:
        store.write(TA, tuples(ta_row(i, exchange="zeta") for i in range(50)))
    arguments = ["--store", str(filled), "--pair", "BTC/USD", "--timeframe", "1m"]
    assert query.main(arguments) == 1
    assert capsys.readouterr().err == "query: BTC/USD is on several exchanges; name one of kraken, zeta\n"
    assert query.main([*arguments, "--exchange", "zeta"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]} == {"zeta"}


@pytest.fixture
def with_news(filled: Path) -> Path:
    with make_store(filled) as store:
        writer = SentimentWriter(store, lambda: T0 + 150 * MINUTE)
        writer.write("BTC", [signal(i * MINUTE, "s", 0.5) for i in range(100, 103)])
        writer.write("SOL", [signal(90 * MINUTE, story, -0.25, coin="SOL") for story in "abcdef"])
    return filled


def test_query_prints_the_sentiment_of_each_coin_below_the_vectors(
    with_news: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert query.main(["--store", str(with_news)]) == 0
    *vectors, empty, header, btc, sol = capsys.readouterr().out.splitlines()
    assert (len(vectors), empty) == (4, "")
    assert header.split()[:1] == ["coin"]
    assert btc.split() == [
        *("BTC", "2024-01-01", "01:57:00", "2024-01-01", "01:42:00"),
        *("3", "0.5", "3", "0.5"),
    ]
    assert sol.split()[-4:] == ["0", "-", "6", "-0.25"]
    assert query.main(["--store", str(with_news), "--pair", "BTC/USD"]) == 0
    assert "SOL" not in capsys.readouterr().out
    assert query.main(["--store", str(with_news), "--pair", "ETH/USD"]) == 0
    assert "coin" not in capsys.readouterr().out


def test_query_of_a_coin_prints_its_newest_sentiment_first(
    with_news: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert query.main(["--store", str(with_news), "--coin", "BTC", "--limit", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["01:57:00", "01:56:00", "01:55:00", "01:42:00"]


def test_query_limits_what_it_prints_and_says_so(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert query.main(["--store", str(filled), "--limit", "1"]) == 0
    assert "2 more" in capsys.readouterr().out


def test_query_answers_sql(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT pair, count(*) AS n, NULL AS empty FROM ta WHERE timeframe = '1m' GROUP BY 1"
    assert query.main(["--store", str(filled), "--sql", sql]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "pair       n  empty",
        "BTC/USD  150  -",
        "ETH/USD  150  -",
    ]


def test_query_reads_no_more_rows_of_an_sql_answer_than_it_prints(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without an end of its own, and so only answered where the rest is left alone.
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert query.main(["--store", str(filled), "--sql", endless, "--limit", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == ["i", "1", "2", "… and more rows; see --limit"]
    assert query.main(["--store", str(filled), "--sql", f"{endless} LIMIT 2", "--limit", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == ["i", "1", "2"]
    with SqliteReader(filled) as reader:
        assert reader.sql(endless, limit=3) == (["i"], [(1,), (2,), (3,)])
        # The connection is as free as after a whole answer.
        assert reader.sql("SELECT count(*) FROM ta")[1] == [(301,)]


def test_query_describes_a_group_or_all_of_them(with_news: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert query.main(["--store", str(with_news), "--describe", "ta"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"ta version 1: {TA.description}", "301 closed rows in 3 series"]
    (series,) = (line.split() for line in lines if line.startswith("kraken") and " 1h " in line)
    assert series[3:8] == ["1", "2024-01-01", "01:00:00", "2024-01-01", "01:00:00"]
    rows = {cells[0]: cells for line in lines if (cells := line.split())}
    assert rows["rsi_14"][1:4] == ["percent", "0.3%", "Relative"]
    assert rows["adx_14"][1:3] == ["percent", "100.0%"]
    assert rows["close"][1:4] == ["quote", "-", "Price"]
    assert query.main(["--store", str(with_news), "--describe", "all"]) == 0
    everything = capsys.readouterr().out
    assert all(f"{name} version 1" in everything for name in ("ta", "news_signals", "sentiment"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (119, "119 s"), (720, "12 min"), (18_000, "5 h"), (700_000, "8 d")]
)
def test_an_age_is_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--describe", "moods"], "known: news_signals"),
        (["--pair", "DOGE/USD"], "known: BTC/USD, ETH/USD"),
        (["--pair", "BTC/USD", "--timeframe", "7m"], "known: 1h, 1m"),
        (["--sql", "DELETE FROM ta_1"], "readonly"),
        (["--sql", "SELECT"], "SQL"),
        (["--limit", "0"], "--limit"),
        (["--coin", "DOGE"], "known: none yet"),
        (["--coin", "BTC", "--pair", "BTC/USD"], "without --pair"),
    ],
)
def test_query_says_what_is_wrong_in_one_line(
    filled: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert query.main(["--store", str(filled), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert len(captured.err.splitlines()) == 1


def test_commands_say_that_there_is_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATURES_STORE_PATH", str(tmp_path / "none.sqlite"))
    assert query.main([]) == 1
    assert export.main(["--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("make demo") == 2


def test_serve_refuses_a_port_that_there_is_not(filled: Path) -> None:
    command = [sys.executable, "-m", "services.features.serve", "--store", str(filled), "--port", "99999"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (1, "serve: --port must be from 0 to 65535, not 99999\n")


def test_export_writes_parquet_that_duckdb_and_polars_read(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export.main(["--store", str(filled), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    file = out / "ta" / "exchange=kraken" / "pair=BTC%2FUSD" / "timeframe=1m" / "ta.parquet"
    assert str(file) in printed
    assert "301 rows in 3 files" in printed
    with duckdb.connect() as connection:
        files = "read_parquet(?, hive_partitioning = true)"
        sql = f"SELECT pair, timeframe, count(*) FROM {files} GROUP BY ALL ORDER BY ALL"
        assert connection.execute(sql, [f"{out}/ta/**/*.parquet"]).fetchall() == [
            ("BTC/USD", "1h", 1),
            ("BTC/USD", "1m", 150),
            ("ETH/USD", "1m", 150),
        ]
    assert pl.read_parquet(out / "ta")["pair"].unique().sort().to_list() == ["BTC/USD", "ETH/USD"]


def test_an_exported_file_holds_exactly_the_history(filled: Path, tmp_path: Path) -> None:
    with SqliteReader(filled) as store:
        (written,) = export.export(store, tmp_path, pairs=["ETH/USD"], timeframes=["1m"])
        expected = store.history("ETH/USD", "1m").drop_columns(list(TA.key))
    # Read as a file: as a path its folders would add the key.
    assert pq.read_table(io.BytesIO(written.path.read_bytes())).equals(expected)
    assert written.rows == 150


def test_an_export_of_a_new_version_leaves_one_file_a_series_that_every_reader_takes(
    filled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with SqliteReader(filled) as store:
        (written,) = export.export(store, out, pairs=["BTC/USD"], timeframes=["1m"])
    # As exports of before named it, and what somebody else put there.
    before = written.path.rename(written.path.with_name("ta_1.parquet"))
    other = before.with_name("ta_notes.txt")
    other.write_text("mine")
    column = Column("moon_phase", "float", "ratio", "A new indicator", nullable=True)
    second = replace(TA, version=2, columns=(*TA.columns, column))
    with make_store(filled, [second]) as store:
        for moon in (0.5, 0.25):
            store.write(second, [(*row, moon) for row in tuples([ta_row(0)])])
            (written,) = export.export(store, out, pairs=["BTC/USD"], timeframes=["1m"])
            metadata: Any = pq.read_schema(written.path).metadata
            assert metadata[b"feature_group_version"] == b"2"
    assert sorted(path.name for path in written.path.parent.iterdir()) == ["ta.parquet", "ta_notes.txt"]
    other.unlink()
    assert len(pd.read_parquet(out / "ta")) == 150
    hours = pl.scan_parquet(f"{out}/ta/**/*.parquet", hive_partitioning=True).collect()
    assert hours["moon_phase"].drop_nulls().to_list() == [0.25]
    with duckdb.connect() as connection:
        sql = f"SELECT count(*) FROM read_parquet('{out}/ta/**/*.parquet', hive_partitioning = true)"
        assert connection.execute(sql).fetchall() == [(150,)]


def test_an_export_of_many_pages_neither_loses_nor_repeats_rows(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page_rows in (7, 50, 150):
        monkeypatch.setattr(export, "PAGE_ROWS", page_rows)
        with SqliteReader(filled) as store:
            (written,) = export.export(
                store, tmp_path, pairs=["BTC/USD"], timeframes=["1m"], end=T0 + 100 * MINUTE
            )
        times = pq.read_table(io.BytesIO(written.path.read_bytes()))["end_ms"].to_pylist()
        assert times == [T0 + (i + 1) * MINUTE for i in range(100)]


def exported(out: Path) -> list[str]:
    return sorted(str(file.relative_to(out)) for file in out.rglob("*.parquet"))


def test_export_writes_news_and_sentiment_by_coin(
    with_news: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export.main(["--store", str(with_news), "--out", str(out)]) == 0
    assert exported(out)[:4] == [
        f"{group}/coin={coin}/{group}.parquet"
        for group in ("news_signals", "sentiment")
        for coin in ("BTC", "SOL")
    ]
    assert len(exported(out)) == 7
    assert pl.read_parquet(out / "sentiment").group_by("coin").len().sort("coin").rows() == [
        ("BTC", 6),
        ("SOL", 3),
    ]
    with SqliteReader(with_news) as store:
        expected = store.history(group="news_signals", coin="SOL").drop_columns(["coin"])
    file = (out / "news_signals" / "coin=SOL" / "news_signals.parquet").read_bytes()
    assert pq.read_table(io.BytesIO(file)).equals(expected)


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (["--pair", "BTC/USD"], ["news_signals/coin=BTC", "sentiment/coin=BTC", "ta/exchange=kraken"]),
        (["--pair", "ETH/USD"], ["ta/exchange=kraken"]),
        (["--group", "sentiment"], ["sentiment/coin=BTC", "sentiment/coin=SOL"]),
        (["--group", "news_signals", "--coin", "SOL"], ["news_signals/coin=SOL"]),
    ],
)
def test_an_export_can_be_of_a_group_a_pair_or_a_coin(
    with_news: Path, tmp_path: Path, arguments: list[str], folders: list[str]
) -> None:
    out = tmp_path / "out"
    assert export.main(["--store", str(with_news), "--out", str(out), *arguments]) == 0
    assert sorted({"/".join(file.split("/")[:2]) for file in exported(out)}) == folders


def test_pages_of_an_export_neither_lose_nor_repeat_signals_of_one_time(
    with_news: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page_rows in (1, 2, 3, 6):
        monkeypatch.setattr(export, "PAGE_ROWS", page_rows)
        with SqliteReader(with_news) as store:
            (written,) = export.export(store, tmp_path, group="news_signals", coins=["SOL"])
        stories = pq.read_table(io.BytesIO(written.path.read_bytes()))["story_id"].to_pylist()
        assert stories == list("abcdef")


def test_export_says_what_is_wrong_in_one_line(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for arguments, says in (
        (["--out", str(tmp_path / "out"), "--pair", "DOGE/USD"], "known: BTC/USD"),
        (["--out", str(tmp_path / "file")], "cannot write"),
        (["--out", str(tmp_path / "out"), "--from", "tomorrow"], "is no time"),
        (["--out", str(tmp_path / "out"), "--group", "moods"], "unknown feature group"),
        (["--out", str(tmp_path / "out"), "--coin", "DOGE"], "known: none yet"),
    ):
        assert export.main(["--store", str(filled), *arguments]) == 1
        error = capsys.readouterr().err
        assert says in error
        assert len(error.splitlines()) == 1


def run_notebook(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "notebooks" / "explore.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )


@pytest.mark.parametrize("news", [False, True])
def test_the_notebook_runs_as_a_script_on_a_store(
    filled: Path, tmp_path: Path, news: bool, request: pytest.FixtureRequest
) -> None:
    if news:
        request.getfixturevalue("with_news")
    plot = tmp_path / "plot.png"
    ran = run_notebook("--store", str(filled), "--plot", str(plot))
    assert ran.returncode == 0, ran.stderr
    for part in (
        *("301 rows in 3 series", "History as pandas", "The same in Polars", "Training set of 147 rows"),
        *("Least squares, judged by time", "DuckDB over"),
    ):
        assert part in ran.stdout
    # Rows whose label of three candles reaches over a cut are in no part.
    assert re.findall(r"^(\w+) +(\d+) rows +R²", ran.stdout, re.MULTILINE) == [
        *(("train", "86"), ("validation", "27"), ("test", "30"))
    ]
    assert ("Windows of news" in ran.stdout) == news
    assert plot.stat().st_size > 10_000


def test_the_notebook_runs_on_a_store_that_counts_nothing_and_exports_one_series(path: Path) -> None:
    with make_store(path) as store:
        for pair in ("BTC/USD", "ETH/USD"):
            rows = [ta_row(i, pair=pair, close=100.0 + i % 3, rsi_14=50.0 + i % 7) for i in range(150)]
            store.write(TA, tuples(rows))
    code = f"""
import runpy, sys
from services.features import export
from services.features.stores.sqlite_reader import SqliteReader
plain, written = SqliteReader.describe, export.export
def uncounted(self, *args, **options):
    found = plain(self, *args, **options)
    for one in (found, *found["series"], *found["columns"]):
        one |= {{name: None for name in ("rows", "first_ms", "null_rate") if name in one}}
    return found
def told(*args, **options):
    files = written(*args, **options)
    print("exported", len(files))
    return files
SqliteReader.describe, export.export = uncounted, told
sys.argv = ["explore.py", "--store", {str(path)!r}]
runpy.run_path({str(ROOT / "notebooks" / "explore.py")!r}, run_name="__main__")
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert "- rows in 2 series" in ran.stdout, ran.stderr
    assert "exported 1\n" in ran.stdout, ran.stderr


def test_the_notebook_says_what_to_do_without_a_store(tmp_path: Path) -> None:
    ran = run_notebook("--store", str(tmp_path / "none.sqlite"))
    assert ran.returncode == 1
    assert "make demo" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_example_configuration_names_every_setting_and_is_valid() -> None:
    file = ROOT / "services" / "features" / ".env"
    lines = file.read_text().splitlines()
    for name, field in FeaturesSettings.model_fields.items():
        assert field.description, name
        (at,) = (
            i
            for i, line in enumerate(lines)
            if line.removeprefix("# ").startswith(f"FEATURES_{name.upper()}=")
        )
        assert lines[at - 1].startswith("# "), name
    loaded = FeaturesSettings.load(environ={}, env_file=file)
    assert loaded.model_copy(update={"http_port": 0}) == FeaturesSettings.load(environ={})
    BrokerSettings.load(environ={}, env_file=file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FEATURES_STORE", "oracle"),
        ("FEATURES_MAX_ROWS", "0"),
        ("FEATURES_API_KEY", "short"),
        ("FEATURES_STORE_SYNCHRONOUS", "off"),
        ("FEATURES_STALE_GRACE_S", "-1"),
        ("FEATURES_STORE_PAHT", "x"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as refused:
        FeaturesSettings.load(environ={name: value})
    assert value not in str(refused.value).split() or name == "FEATURES_STORE_PAHT"


class _NoStream:
    def __init__(self, *_: object) -> None:
        self.steps: list[str] = []

    def add_step(self, source: str, *_: object, **__: object) -> None:
        self.steps.append(source)

    def on_tick(self, callback: Callable[[], None]) -> None:
        pass

    def run(self) -> None:
        pass


def test_an_open_address_without_an_api_key_is_warned_about(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "Stream", _NoStream)
    key = "a-key-of-16-signs-or-more"
    warnings: list[str] = []
    sink = logger.add(lambda text: warnings.append(str(text)), level="WARNING")
    try:
        for host, api_key, expected in (
            ("127.0.0.1", "", 0),
            ("0.0.0.0", key, 0),
            ("0.0.0.0", "", 1),
        ):
            warnings.clear()
            environ = {
                "FEATURES_STORE_PATH": str(path),
                "FEATURES_HTTP_HOST": host,
                "FEATURES_API_KEY": api_key,
            }
            settings = FeaturesSettings.load(environ=environ)
            context = Context("features", BrokerSettings.load(environ={}), Health(60), Metrics())
            pipeline.build_pipeline(settings, context).run()
            assert len(warnings) == expected
            assert key not in "".join(warnings) + repr(settings)
            assert len(context.routers) == 1
    finally:
        logger.remove(sink)
