"""The clusters in containers: every row arrives, and killing, freezing and scaling change none of them."""

import json
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests

from services.demo import scenario
from tests.docker.clusters import IMAGES, KEY, ROOT, Clusters
from tests.docker.plays import TIMEFRAMES, assert_same, play
from tests.pipeline.support import Rows

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

#: What the images may take, base included; a new dependency should be noticed.
LARGEST_MB = {"trades": 270, "candles": 270, "ta": 350, "features": 400, "news": 270, "news_signals": 470}


def test_an_image_is_small_and_runs_as_a_user_who_may_do_little(clusters: Clusters) -> None:
    sizes = {}
    for name in IMAGES:
        image = f"{clusters.project}/{name}"
        sizes[name] = int(clusters.docker("image", "inspect", "--format", "{{.Size}}", image)) // 1_000_000
        assert clusters.docker("image", "inspect", "--format", "{{.Config.User}}", image) == "10001:10001"
        look = "command -v gcc cc uv; ls /opt/app/services | grep -v pycache"
        found = clusters.docker("run", "--rm", "--entrypoint=sh", image, "-c", look)
        assert found.split() == sorted(["__init__.py", "common", name])
    print("images, MB:", sizes)
    assert {name: size for name, size in sizes.items() if size > LARGEST_MB[name]} == {}


def test_the_engine_understands_every_file(clusters: Clusters) -> None:
    for path in (ROOT / "docker-compose").glob("*.yml"):
        # The services' own file is only extended, and names volumes of those that extend it.
        if path.name != "services.yml":
            assert clusters.docker("compose", "-f", str(path), "config", "--quiet") == ""


def test_every_row_of_a_replay_comes_through_all_clusters(clusters: Clusters, everything: None) -> None:
    counts = {"1m": 60, "5m": 12, "15m": 4, "30m": 2, "1h": 1}

    def stored() -> dict[str, int]:
        rows = clusters.ta_rows("kraken", ("BTC/USD",), TIMEFRAMES)
        return dict(Counter(timeframe for _, _, timeframe, _ in rows))

    clusters.wait_for(lambda: stored() == counts, "the candles of the real hour")
    rows = clusters.ta_rows("kraken", ("BTC/USD",), ("1m",))
    assert sum(row["trade_count"] for row in rows.values()) == scenario.SAMPLE_TRADES
    first, second = scenario.headlines(clusters.data)
    expected = first.signals + second.signals

    def signals() -> Counter[str]:
        answers = {
            coin: clusters.get("/features/news_signals/history", coin=coin, format="csv") for coin in expected
        }
        return Counter(
            {coin: len(answer.text.splitlines()) - 1 for coin, answer in answers.items() if answer.ok}
        )

    clusters.wait_for(lambda: signals() == expected, f"the signals of {len(expected)} coins")
    latest = clusters.get("/features/ta/latest", exchange="kraken", pair="BTC/USD", timeframe="1h").json()
    assert latest["features"]["trade_count"] == scenario.SAMPLE_TRADES


def test_features_of_two_clusters_is_one_container(clusters: Clusters, everything: None) -> None:
    (before,) = clusters.containers("features")
    clusters.make("up", "cluster=sentiment_signals", "svc=features")
    assert clusters.containers("features") == [before]


def test_a_secret_is_known_to_its_service_and_shown_by_nobody(clusters: Clusters, everything: None) -> None:
    path = "/features/ta/latest"
    assert clusters.get(path).status_code == 200
    assert requests.get(f"{clusters.url}{path}", timeout=10).status_code == 401
    (container,) = clusters.containers("features")
    assert KEY not in clusters.docker("inspect", container)
    assert (
        KEY not in clusters.docker("logs", container) + requests.get(f"{clusters.url}/info", timeout=10).text
    )


def test_a_container_is_locked_up(clusters: Clusters, everything: None) -> None:
    for name in ("candles", "ta", "features", "news_signals"):
        (container,) = clusters.containers(name)
        told = json.loads(clusters.docker("inspect", "--format", "{{json .HostConfig}}", container))
        assert told["ReadonlyRootfs"] is told["Init"] is True
        assert told["CapDrop"] == ["ALL"]
        assert told["SecurityOpt"] == ["no-new-privileges:true"]
        assert min(told["Memory"], told["NanoCpus"], told["PidsLimit"]) > 0
    published = clusters.docker("port", clusters.containers("features")[0])
    assert published.startswith("8000/tcp -> 127.0.0.1:")
    assert "\n" not in published


def test_killed_and_frozen_services_start_again_and_lose_nothing(
    clusters: Clusters, everything: None, undisturbed: Rows
) -> None:
    play(clusters, "killed")
    time.sleep(8)
    (frozen,) = clusters.containers("ta")
    restarts = clusters.restarts(frozen)
    clusters.signal_inside(frozen, "STOP")
    for name in ("candles", "features", "trades"):
        (container,) = clusters.containers(name)
        clusters.docker("kill", container)
        # So long its group takes to notice.
        time.sleep(4)
        assert clusters.containers(name) == [], "docker kill is a wish that it stays down"
        clusters.make("up", "cluster=indicators", f"svc={name}")
        assert len(clusters.containers(name)) == 1
    clusters.wait_for(
        lambda: clusters.restarts(frozen) > restarts, "the end of what hangs by its health check"
    )
    assert_same(clusters, "killed", undisturbed)


def test_replicas_come_and_go_under_load_and_the_rows_stay_the_same(
    clusters: Clusters, everything: None, undisturbed: Rows
) -> None:
    play(clusters, "scaled")
    time.sleep(8)
    clusters.make("up", "cluster=indicators", "svc=candles", "replicas=3")
    replicas = clusters.containers("candles")
    assert len(replicas) == 3

    def shares() -> list[float]:
        samples = [clusters.metrics(container) for container in replicas]
        return [
            sum(v for name, v in s.items() if name.startswith("messages_processed_total")) for s in samples
        ]

    clusters.wait_for(lambda: min(shares()) > 10, "work for each of three replicas", 60)
    print("messages of each replica:", shares())
    clusters.make("up", "cluster=indicators")
    assert len(clusters.containers("candles")) == 3
    clusters.make("up", "cluster=indicators", "svc=candles", "replicas=1")
    assert len(clusters.containers("candles")) == 1
    assert clusters.containers("trades"), "the replay ended before the last replica was gone"
    assert_same(clusters, "scaled", undisturbed)


def run_history(clusters: Clusters, *options: str) -> Rows:
    """Rows of BTC/USD of the exchange ``past`` when a historical run of the hour has ended well."""
    clusters.configure({})
    names = [f"{name}_historical" for name in ("trades", "candles", "ta", "features")]
    (asked,) = clusters.containers("features")
    clusters.make("up", "cluster=indicators_historical", "exchange=past", "pairs=BTC/USD", *options)
    clusters.wait_for(lambda: not any(map(clusters.containers, names)), "the end of the historical services")
    found = [container for name in names for container in clusters.containers(name, every=True)]
    codes = clusters.docker("inspect", "--format", "{{.State.ExitCode}} {{.RestartCount}}", *found)
    assert set(codes.splitlines()) == {"0 0"}
    assert clusters.containers("features") == [asked]
    return clusters.ta_rows("past", ("BTC/USD",), TIMEFRAMES)


def test_history_comes_into_the_same_store_and_its_containers_end_each_time(
    clusters: Clusters, everything: None
) -> None:
    begin_ms = scenario.SAMPLE_BEGIN_MS
    path = clusters.data / "kraken" / "BTC-USD.csv.gz"
    options = (f"since={begin_ms}", f"until={begin_ms + 3_600_000}", f"path={path}")
    rows = run_history(clusters, *options)
    assert len(rows) == 60 + 12 + 4 + 2 + 1
    assert rows == clusters.ta_rows("kraken", ("BTC/USD",), TIMEFRAMES)
    # The topics still hold the ends of the first run.
    assert run_history(clusters, *options) == rows


def test_history_of_candles_comes_in_without_trades(clusters: Clusters, everything: None) -> None:
    path = clusters.data / "XBTUSD_1.csv"
    begin_s = scenario.SAMPLE_BEGIN_MS // 1000 - 3_600
    path.write_text("".join(f"{begin_s + 60 * i},100,102,99,{100 + i % 3},1.5,7\n" for i in range(60)))
    path.chmod(0o644)
    rows = run_history(clusters, f"path={path}", f"until={scenario.SAMPLE_BEGIN_MS}")
    hour = rows["*", "BTC/USD", "1h", scenario.SAMPLE_BEGIN_MS]
    assert (hour["trade_count"], hour["high"], hour["close"]) == (420, 102.0, 102.0)
    assert clusters.containers("trades_historical", every=True) == []
    clusters.make("down", "cluster=indicators_historical")


def test_a_history_that_fails_is_given_up_and_can_be_run_again(clusters: Clusters, everything: None) -> None:
    path = clusters.data / "BTC-USD.csv"
    path.write_text("no,trades\n")
    path.chmod(0o644)
    up = ("up", "cluster=indicators_historical", "exchange=past", f"path={path}")
    clusters.configure({})
    clusters.make(*up)
    clusters.wait_for(
        lambda: (
            [clusters.restarts(one) for one in clusters.containers("trades_historical", every=True)] == [5]
            and not clusters.containers("trades_historical")
        ),
        "the last of five restarts",
    )
    assert "a history is on its way" in clusters.make(*up, code=2)
    clusters.make("down", "cluster=indicators_historical")
    assert clusters.containers("ta_historical", every=True) == []
    clusters.make(*up)
    clusters.make("down", "cluster=indicators_historical")


def test_the_store_comes_out_as_parquet(clusters: Clusters, everything: None, tmp_path: Path) -> None:
    (container,) = clusters.containers("features")
    command = ("--store", "/store/features.sqlite", "--out", "/store/parquet")
    said = clusters.docker("exec", container, "python", "-m", "services.features.export", *command)
    assert " rows in " in said
    clusters.docker("cp", f"{container}:/store/parquet", str(tmp_path))
    (file,) = tmp_path.glob("parquet/ta/exchange=kraken/pair=BTC%2FUSD/timeframe=1h/*.parquet")
    assert pq.read_metadata(file).num_rows >= 1


def test_a_crashed_service_is_started_by_the_engine(clusters: Clusters, everything: None) -> None:
    (container,) = clusters.containers("news_signals")
    before = clusters.restarts(container)
    clusters.signal_inside(container, "KILL")
    clusters.wait_for(lambda: clusters.restarts(container) > before, "another process", 30)
    clusters.wait_for(partial(clusters.answers, container), "its answer", 30)


def test_every_replica_answers_prometheus_under_the_name_of_its_service(
    clusters: Clusters, everything: None
) -> None:
    (asker,) = clusters.containers("features")
    names = ("candles", "ta", "features", "news_signals")
    code = (
        f"import socket; print([len(socket.getaddrinfo(n, 8000, type=socket.SOCK_STREAM)) for n in {names}])"
    )
    assert clusters.inside(asker, code) == "[1, 1, 1, 1]"
    for name in names:
        (container,) = clusters.containers(name)
        # One that was started again a moment ago takes its time.
        clusters.wait_for(partial(clusters.answers, container), f"the metrics of {name}", 30)
        assert clusters.metrics(container)["process_resident_memory_bytes"] > 0


def test_logs_are_lines_that_name_their_service(clusters: Clusters, everything: None) -> None:
    lines = clusters.make("logs", "cluster=indicators", "svc=candles", "follow=0").splitlines()
    assert any("candles-1" in line and "INFO    candles | HTTP on" in line for line in lines)


def test_a_cluster_goes_down_without_what_another_needs(clusters: Clusters, everything: None) -> None:
    clusters.make("restart", "cluster=sentiment_signals", "svc=news_signals")
    clusters.make("stop", "cluster=indicators", "svc=ta")
    assert clusters.containers("ta") == []
    said = clusters.make("down", "cluster=indicators")
    assert "features stays" in said
    assert clusters.containers("candles", every=True) == []
    assert len(clusters.containers("features")) == len(clusters.containers("redpanda")) == 1


def test_nothing_stays_behind(clusters: Clusters) -> None:
    clusters.remove()
    label = f"--filter=label=com.docker.compose.project={clusters.project}"
    assert clusters.docker("ps", "--all", "--quiet", label) == ""
    assert clusters.docker("volume", "ls", "--quiet", label) == ""
    assert clusters.docker("network", "ls", "--quiet", label) == ""
    assert clusters.docker("image", "ls", "--quiet", label) == ""
