"""kill -9 of the news pipeline at named points: signals and windows end as if nobody was killed."""

import csv
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import ServiceError
from services.demo.processes import Service
from services.demo.scenario import HEADLINES
from services.features import open_store
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder
from tests.pipeline.support import World, wait_for

SERVICES = ("news_signals", "features", "news")
#: 60 articles of six weeks, told in about two seconds.
ARTICLES, SPEED = 60, 400_000
# The tests of news and news_signals have more of these.
KILLS = [
    ("news", "news_before_send", 4),
    ("news", "news_before_confirm", 3),
    ("news_signals", "signals_after_flush", 4),
    ("news_signals", "before_commit", 4),
    ("features", "mid_transaction", 20),
    ("features", "after_sentiment_write", 20),
]
type Groups = dict[str, list[dict[str, Any]]]


class NewsWorld(World):
    """A broker and the services of the news pipeline."""

    def __init__(self, folder: Path, articles: Path) -> None:
        super().__init__(folder)
        self._articles = articles

    def run(self, service: str, victim: tuple[str, int] | None = None) -> Service:
        settings = {
            "news": {
                "SOURCES": "file",
                "FILE_PATH": str(self._articles),
                "FILE_SPEED": str(SPEED),
                "FILE_COLUMNS": "published=published_at,observed=observed_at",
            },
            "news_signals": {"COMMIT_INTERVAL_S": "0.02", "BATCH": "2"},
            "features": {"COMMIT_INTERVAL_S": "0.02", "STORE_PATH": str(self.folder / "store.sqlite")},
        }[service]
        command = ("tests.pipeline.victim", service, victim[0], str(victim[1])) if victim else ()
        name = f"{service}-{len(list(self.folder.glob('*.log')))}"
        return self.cluster.start(service, settings, name, command)

    def groups(self) -> Groups:
        """Every row of both groups and the newest ones, without when they were written or scored."""
        found: Groups = {}
        try:
            with open_store(self.folder / "store.sqlite") as store:
                for group in ("news_signals", "sentiment"):
                    rows = store.history(group=group).to_pylist()
                    found |= {group: rows, f"{group} online": store.latest_all(group=group)}
        except ServiceError:
            return {}
        for rows in found.values():
            for row in rows:
                row.pop("ingested_at_ms", None)
                row.pop("scored_at_ms", None)
        return found

    def settled(self, expected: int) -> Groups:
        """The rows once every signal is there."""

        def done() -> bool:
            self.cluster.check()
            return len(self.groups().get("news_signals", ())) >= expected

        wait_for(done, f"{expected} signals in the store")
        self.cluster.stop()
        return self.groups()


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the demo's news, repeats included."""
    with HEADLINES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::3][:ARTICLES]
        repeated = [dict(row, source="Another Paper", id=f"again-{row['id']}", url="") for row in rows[:10]]
    path = tmp_path_factory.mktemp("articles") / "articles.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows + repeated)
    return path


@pytest.fixture(scope="module")
def expected(articles: Path) -> int:
    """The number of signals: articles times the coins that each is about."""
    finder = CoinFinder(load_coins())
    with articles.open(encoding="utf-8", newline="") as file:
        return sum(
            len(finder.find(row["title"], row["body"], row["coins"].split()).coins)
            for row in csv.DictReader(file)
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, articles: Path, expected: int) -> Iterator[Groups]:
    """What the store holds when nobody is killed."""
    with NewsWorld(tmp_path_factory.mktemp("undisturbed"), articles) as world:
        for service in SERVICES:
            world.run(service)
        yield world.settled(expected)


def test_the_news_of_these_tests_has_repeats_and_every_signal_of_it_is_stored(
    undisturbed: Groups, expected: int
) -> None:
    signals = undisturbed["news_signals"]
    assert len(signals) == expected
    assert sum(row["novelty"] == 0.75 for row in signals) >= 10
    assert {row["coin"] for row in undisturbed["sentiment online"]} == {row["coin"] for row in signals}


@pytest.mark.parametrize(("service", "point", "number"), KILLS)
def test_a_service_killed_at_a_point_leaves_the_signals_and_windows_of_an_undisturbed_run(
    service: str,
    point: str,
    number: int,
    undisturbed: Groups,
    articles: Path,
    expected: int,
    tmp_path: Path,
) -> None:
    with NewsWorld(tmp_path, articles) as world:
        for name in SERVICES:
            if name != service:
                world.run(name)
        victim = world.run(service, (point, number))
        wait_for(lambda: victim.process.poll() is not None, f"the death of {service}")
        assert victim.process.returncode == -signal.SIGKILL, victim.tail()
        world.cluster.services.remove(victim)
        world.run(service)
        assert world.settled(expected) == undisturbed
