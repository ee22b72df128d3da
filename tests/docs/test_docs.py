"""The documents name what there is: commands, topics, settings, files, metrics; their examples run."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from docs.generate import SETTINGS
from services.common.health import Health
from services.common.http import HttpServer, build_http_app
from services.common.metrics import Metrics
from services.common.settings import BrokerSettings, EnvSettings
from services.common.topics import TOPICS
from services.features import open_store
from services.features.api import build_router
from services.features.export import export
from services.features.groups import TA
from services.features.query import main as query
from services.features.sentiment import SentimentWriter
from tests.features.rows import T0, make_store, signal, ta_row, tuples

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
TEXTS = {name: (ROOT / name).read_text() for name in NAMES}
SERVICES: dict[str, type[EnvSettings]] = {
    name: settings for name, settings in SETTINGS.items() if settings is not BrokerSettings
}
TARGETS = set(re.findall(r"^([a-z-]+):(?!=).*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

each_document = pytest.mark.parametrize("name", NAMES)
each_service = pytest.mark.parametrize("service", SERVICES)


def code_of(text: str) -> list[str]:
    """Fenced blocks and inline code spans."""
    blocks = [body for _, body in BLOCK.findall(text)]
    return blocks + re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def commands_of(text: str) -> set[str]:
    """Make targets that the code in a document calls."""
    return {target for code in code_of(text) for target in re.findall(r"\bmake ([a-z-]+)", code)}


def python_of(text: str) -> list[str]:
    return [body for language, body in BLOCK.findall(text) if language == "python"]


@pytest.fixture
def demo_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `make demo` leaves, in small, seen from the current folder."""
    monkeypatch.chdir(tmp_path)
    path = Path(".demo/features.sqlite")
    with make_store(path) as store:
        for timeframe in ("1m", "1h"):
            for pair in ("BTC/USD", "ETH/USD"):
                rows = [
                    ta_row(
                        at,
                        pair=pair,
                        timeframe=timeframe,
                        exchange="simulated",
                        close=100.0 + at % 7,
                        rsi_14=50.0 + at,
                        macd_hist=0.1 * at,
                    )
                    for at in range(30)
                ]
                store.write(TA, tuples(rows))
        store.write(TA, tuples([ta_row(0, timeframe="1h", exchange="kraken")]))
        writer = SentimentWriter(store, lambda: T0 + 10 * 86_400_000)
        for coin in ("BTC", "ETH"):
            writer.write(coin, [signal(hour * 3_600_000, f"s{hour}", coin=coin) for hour in range(20)])
    return path


@each_document
def test_every_command_that_a_document_names_is_in_the_makefile(name: str) -> None:
    assert commands_of(TEXTS[name]) - TARGETS == set()


def test_every_command_of_the_makefile_is_explained() -> None:
    assert TARGETS - commands_of(TEXTS["README.md"]) - commands_of(TEXTS["CONTRIBUTING.md"]) == set()


def test_every_topic_is_in_the_readme_with_how_long_it_is_kept() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) days \|$", TEXTS["README.md"], re.MULTILINE))
    assert {name: int(days) for name, days in rows.items()} == {
        name: spec.retention_ms // 86_400_000 for name, spec in TOPICS.items()
    }


@pytest.mark.parametrize("part", SETTINGS)
def test_every_setting_is_in_the_example_file(part: str) -> None:
    settings = SETTINGS[part]
    prefix = settings.model_config["env_prefix"]
    text = (ROOT / ".env.example").read_text()
    named = [
        name
        for name in re.findall(rf"^# ({prefix}\w+)=", text, re.MULTILINE)
        if not name.startswith(settings.other_prefixes)
    ]
    assert named == [f"{prefix}{field.upper()}" for field in settings.model_fields]


def test_every_service_has_its_example_settings() -> None:
    assert {path.parent.name for path in (ROOT / "services").glob("*/.env")} == set(SERVICES)


@each_service
def test_the_example_settings_of_a_service_are_valid(service: str) -> None:
    path = ROOT / "services" / service / ".env"
    SERVICES[service].load({}, env_file=path)
    BrokerSettings.load({}, env_file=path)


@each_service
def test_the_port_of_a_service_in_the_readme_is_that_of_its_example_settings(service: str) -> None:
    settings: Any = SERVICES[service].load({}, env_file=ROOT / "services" / service / ".env")
    row = re.search(rf"^\| {service} \|.*\| (\d+)[^|]*\|$", TEXTS["README.md"], re.MULTILINE)
    assert row is not None
    assert int(row[1]) == settings.http_port


@each_document
def test_every_setting_that_a_document_names_exists(name: str) -> None:
    known = {
        f"{settings.model_config['env_prefix']}{field.upper()}"
        for settings in SETTINGS.values()
        for field in settings.model_fields
    }
    text = "\n".join(code_of(TEXTS[name]))
    assert (
        set(re.findall(r"\b(?:KAFKA|TRADES|CANDLES|TA|NEWS|FEATURES)_[A-Z_]*[A-Z]\b", text))
        - known
        - {"KAFKA_SASL"}
        == set()
    )


@each_document
def test_every_link_leads_to_a_file(name: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", TEXTS[name])
    assert [link for link in links if not (ROOT / link).exists()] == []


@each_document
def test_every_path_that_a_document_names_exists(name: str) -> None:
    tops = "services|tests|docs|benchmarks|notebooks|requirements"
    paths = [code for code in code_of(TEXTS[name]) if re.fullmatch(rf"({tops})/[\w./-]*", code)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@each_document
def test_every_module_that_a_document_runs_exists(name: str) -> None:
    modules = {module for code in code_of(TEXTS[name]) for module in re.findall(r"-m ([\w.]+)", code)}
    assert [module for module in modules if find_spec(module) is None] == []


def test_every_metric_is_in_the_architecture() -> None:
    made = {
        metric
        for path in (ROOT / "services").rglob("*.py")
        for metric in re.findall(r"\.(?:counter|gauge|histogram)\(\s*\"(\w+)\"", path.read_text())
    }
    shown = re.findall(
        rf"^\| (?:every|{'|'.join(SERVICES)}) \| (`.*) \|$", TEXTS["ARCHITECTURE.md"], re.MULTILINE
    )
    named = {metric for row in shown for metric in re.findall(r"`(\w+)`", row)}
    assert named == made


def test_the_python_examples_run(demo_store: Path) -> None:
    with open_store(demo_store) as store:
        export(store, Path("parquet"))
    seen: dict[str, Any] = {}
    for example in python_of(TEXTS["README.md"]):
        exec(example, seen)
    assert seen["vector"]["end_ms"] == seen["history"]["end_ms"][-1].as_py()
    assert seen["history"].num_rows == 30
    # The last three hours of each pair have no label yet.
    assert seen["training"].num_rows == 2 * 27
    # Of 27 times, those before 60 and 80 % of them but for two whose labels reach over the cut.
    assert [seen[part].num_rows for part in ("train", "validation", "test")] == [2 * 14, 2 * 3, 2 * 6]
    assert max(seen["training"]["news_count_24h"].to_pylist()) == 20
    assert seen["sentiment"].num_rows > 20
    assert {coin: score.signal for coin, score in seen["scored"].coins.items()} == {"DOGE": 1, "SHIB": -1}
    assert dict(seen["counts"].fetchall()) == {"BTC/USD": 61, "ETH/USD": 60}
    assert seen["hours"].height == 61
    assert len(seen["frame"]) == 121


def test_the_query_examples_run(demo_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"^make query(.*)$", TEXTS["README.md"], re.MULTILINE)
    assert len(examples) == 4
    for example in examples:
        options = re.findall(r"(\w+)=(\"[^\"]+\"|\S+)", example.partition("#")[0])
        arguments = [part for key, value in options for part in (f"--{key}", value.strip('"'))]
        assert query(["--store", str(demo_store), *arguments]) == 0
        assert len(capsys.readouterr().out.splitlines()) >= 5


def test_the_model_card_is_filled_in() -> None:
    card = (ROOT / "services/news_signals/model/CARD.md").read_text()
    assert re.findall(r"\b[A-Z]{3,}_[A-Z]{2,}\b|\b(?:FROZEN|TODO|TBD)\b", card) == []


@each_document
def test_no_document_names_a_path_of_one_machine(name: str) -> None:
    assert re.findall(r"/(?:work|home|root|tmp|opt|Users)/", TEXTS[name]) == []


def test_the_http_examples_are_answered(demo_store: Path) -> None:
    router = build_router(
        lambda: open_store(demo_store), api_key=None, max_rows=2_000, stale_grace_s=30, clock_ms=lambda: 0
    )
    app = build_http_app("features", {}, Health(60), Metrics(), [router])
    paths = re.findall(r"^curl 'http://127\.0\.0\.1:8004(.*)'$", TEXTS["README.md"], re.MULTILINE)
    assert len(paths) == 3
    server = HttpServer(app, "127.0.0.1", 0)
    server.start()
    try:
        assert [requests.get(server.url + path, timeout=10).status_code for path in paths] == [200] * 3
    finally:
        server.stop()
