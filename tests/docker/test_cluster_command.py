"""What `make up` refuses and what it tells Compose, seen by a stand-in for docker that only notes it."""

import gzip
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from services.backfill.source import first_lines, offers_candles
from services.common.settings import BrokerSettings
from tests.docker.clusters import ROOT

HISTORY = ("up", "--cluster", "indicators_historical")
SINCE = ("--since", "2024-01-01")
PAIRS = ("--pairs", "BTC/USD")
CANDLES = "1704067200,42000.1,42010,41990.5,42005,1.5,12\n"
TRADES = "1704067200.1234,42000.1,0.5\n"
#: What a spreadsheet makes of them.
HEADED = "time,open,high,low,close,volume,trades\n" + CANDLES
SMALL = CANDLES.replace("1.5", "5e-05")
#: `ps` answers with $RUNNING, of all containers with $THERE; else it leaves its command and its variables.
DOCKER = """#!/bin/sh
case "$*" in
*" ps "*" --all"*) echo "${THERE:-$RUNNING}" ;;
*" ps "*) echo "$RUNNING" ;;
*) echo "$@" >> "$SEEN"; export -p > "$SEEN.environ" ;;
esac
"""


class Docker:
    """`cluster.py` in an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self._seen = folder / "seen"
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        secrets = folder / "secrets"
        secrets.mkdir()
        self.settings = folder / "cluster.env"
        self._environ = {
            "PATH": str(folder),
            "SEEN": str(self._seen),
            "SECRETS_DIR": str(secrets),
            "CLUSTER_ENV": str(self.settings),
        }

    def run(self, *arguments: str, **environ: str) -> list[str]:
        """The commands that docker was asked for; no error."""
        answer = self._run(*arguments, **environ)
        assert answer.returncode == 0, answer.stderr
        return self._seen.read_text().splitlines()

    def refuses(self, *arguments: str, **environ: str) -> str:
        """The reason; docker was asked for nothing."""
        answer = self._run(*arguments, **environ)
        assert answer.returncode == 2, answer.stderr
        assert "Traceback" not in answer.stderr
        assert not self._seen.exists()
        return answer.stderr

    def told(self) -> dict[str, str]:
        """The variables that Compose was given."""
        lines = re.findall(r"^export (\w+)='(.*)'$", self._seen.with_suffix(".environ").read_text(), re.M)
        return dict(lines)

    def _run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "docker-compose" / "cluster.py"), *arguments]
        self._seen.unlink(missing_ok=True)
        return subprocess.run(
            command, capture_output=True, text=True, env={**self._environ, **environ}, timeout=30
        )


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


def test_the_address_of_a_broker_on_the_host_is_refused(docker: Docker) -> None:
    told = docker.refuses("up", "--cluster", "indicators", KAFKA_BROKERS="localhost:19092")
    assert "a container that asks there asks itself" in told


@pytest.mark.parametrize("cluster", ["indicators", "all"])
def test_redpanda_is_not_started_beside_a_broker_of_ones_own(docker: Docker, cluster: str) -> None:
    (own,) = docker.run("up", "--cluster", cluster, KAFKA_BROKERS="broker.example:9092")
    assert "--no-deps" in own
    assert "redpanda" not in own.split()
    (ours,) = docker.run("up", "--cluster", cluster)
    assert "--no-deps" not in ours
    assert ("redpanda" in ours.split()) == (cluster == "all")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((*PAIRS,), "since= says where to begin"),
        ((*SINCE, "--until", "2023-01-01"), "until=2023-01-01 must be after since=2024-01-01"),
        (("--since", "yesterday"), "since=yesterday: write an ISO time like 2024-01-01"),
        (("--since", "1704067200"), "since=1704067200: write an ISO time"),
        ((*SINCE, "--source", "tape"), "unknown source=tape; source=rest|archive"),
        ((*SINCE, "--source", "archive"), "source=archive needs path="),
        ((*SINCE, "--source", "rest", "--path", "/tmp"), "path= goes with source=archive"),
        (("--path", "/no/such/file.csv"), "path=/no/such/file.csv: does not exist"),
        ((*SINCE, "--service", "ta"), "a history runs whole"),
        ((*SINCE, "--service", "ta", "--replicas", "2"), "leave out replicas="),
    ],
)
def test_a_history_that_cannot_work_is_refused(docker: Docker, options: tuple[str, ...], told: str) -> None:
    assert told in docker.refuses(*HISTORY, *options)


def test_a_history_from_the_exchange_takes_what_options_and_then_settings_name(docker: Docker) -> None:
    docker.run(*HISTORY, *SINCE)
    assert docker.told()["TRADES_PAIRS"] == "BTC/USD,ETH/USD,SOL/USD,XRP/USD"
    docker.settings.write_text("# ours\nTRADES_PAIRS='ADA/USD'\n")
    assert docker.run(*HISTORY, *SINCE)
    assert docker.told()["TRADES_PAIRS"] == "ADA/USD"
    docker.run(*HISTORY, *SINCE, *PAIRS, "--exchange", "binance", "--until", "2024-02-01T00:00:00Z")
    told = docker.told()
    assert told["TRADES_PAIRS"] == "BTC/USD"
    assert told["TRADES_HISTORY"] == "rest"
    assert told["TRADES_EXCHANGE"] == "binance"
    assert (told["TRADES_SINCE"], told["TRADES_UNTIL"]) == ("2024-01-01", "2024-02-01T00:00:00Z")


def test_an_archive_alone_is_mounted_and_knows_its_pairs(docker: Docker, tmp_path: Path) -> None:
    path = tmp_path / "XBTUSD.csv"
    path.write_text(TRADES)
    path.chmod(0o644)
    (up,) = docker.run(*HISTORY, "--path", str(path))
    assert up.endswith("trades_historical candles_historical ta_historical features_historical")
    told = docker.told()
    assert told["HISTORY_PATH"] == str(path)
    assert told["TRADES_ARCHIVE_PATH"] == "/archive/XBTUSD.csv"
    assert told["TRADES_HISTORY"] == "archive"
    assert told["TRADES_PAIRS"] == ""
    assert "CANDLES_SOURCE" not in told


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "zip", "folder"])
@pytest.mark.parametrize(
    ("text", "holds"),
    [(CANDLES, True), (TRADES, False), ("\n" + CANDLES, True), (HEADED, True), (SMALL, True)],
)
def test_files_of_candles_come_in_by_candles(
    docker: Docker, tmp_path: Path, kind: str, text: str, holds: bool
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    folder.chmod(0o755)
    path = folder / f"XBTUSD_60.{'csv' if kind == 'folder' else kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("README", "no candles")
            packed.writestr("XBTUSD_1.csv", "")
            packed.writestr("XBTUSD_60.csv", text)
    else:
        path.write_bytes(gzip.compress(text.encode()) if kind == "csv.gz" else text.encode())
    path.chmod(0o644)
    asked = folder if kind == "folder" else path
    assert offers_candles(first_lines(asked)) == holds, "`make backfill` decides otherwise"
    commands = docker.run(*HISTORY, "--path", str(asked), *SINCE, "--exchange", "binance")
    told = docker.told()
    if holds:
        assert commands[-1].endswith(" candles_historical ta_historical features_historical")
        assert "trades_historical" not in commands[-1]
        assert told["CANDLES_SOURCE"] == "archive"
        assert told["CANDLES_ARCHIVE_PATH"] == f"/archive/{asked.name}"
        assert (told["CANDLES_EXCHANGE"], told["CANDLES_SINCE"]) == ("binance", "2024-01-01")
    else:
        assert "trades_historical" in commands[-1]
        assert told["TRADES_ARCHIVE_PATH"] == f"/archive/{asked.name}"


def test_files_that_say_whose_they_are_are_stored_under_that_exchange(docker: Docker, tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-trades-2024-01-01.csv"
    path.write_text("1,100.5,0.25,25.1,1704067200000,True,True\n")
    path.chmod(0o644)
    docker.run(*HISTORY, "--path", str(path))
    assert docker.told()["TRADES_EXCHANGE"] == "binance"
    told = docker.refuses(*HISTORY, "--path", str(path), "--exchange", "kraken")
    assert "is of binance by its format; leave out exchange=kraken" in told


def test_an_archive_that_containers_may_not_read_is_refused(docker: Docker, tmp_path: Path) -> None:
    path = tmp_path / "XBTUSD.csv"
    path.write_text(TRADES)
    path.chmod(0o600)
    told = docker.refuses(*HISTORY, "--path", str(path))
    assert f"user 10001, who runs the services, may not read {path}: chmod -R o+rX {path}" in told


def test_every_run_of_a_history_has_a_name_which_all_its_services_know(docker: Docker) -> None:
    names = set()
    for _ in range(2):
        docker.run(*HISTORY, *SINCE)
        names.add(BrokerSettings.load(docker.told()).history_run)
    assert len(names) == 2
    assert None not in names
    described = yaml.safe_load((ROOT / "docker-compose" / "indicators_historical.yml").read_text())
    for service in described["services"].values():
        assert service["environment"]["KAFKA_HISTORY_RUN"] == "${KAFKA_HISTORY_RUN:-}"
        assert service["restart"] == "on-failure:5"


def test_a_number_of_replicas_outlasts_a_stop(docker: Docker) -> None:
    (command,) = docker.run(
        "up", "--cluster", "indicators", RUNNING="", THERE="candles\ncandles\ncandles\nta"
    )
    assert "--scale=candles=3 --scale=ta=1" in command


@pytest.mark.parametrize("number", ["0", "-1", "65", "many", "1.5"])
def test_a_number_of_replicas_that_cannot_be_is_refused_in_a_line(docker: Docker, number: str) -> None:
    told = docker.refuses("up", "--cluster", "indicators", "--service", "candles", f"--replicas={number}")
    assert told == f"replicas={number}: say a number from 1 to 64\n"


@pytest.mark.parametrize(("command", "done"), [("stop", "stop"), ("down", "rm --stop --force")])
def test_what_another_cluster_needs_goes_on(docker: Docker, command: str, done: str) -> None:
    both = "redpanda\ntrades\ncandles\nta\nfeatures\nnews\nnews_signals"
    (ended, *_) = docker.run(command, "--cluster", "indicators", RUNNING=both)
    assert ended.endswith(f"{done} trades candles ta")
    (ended, *_) = docker.run(command, "--cluster", "indicators", RUNNING="redpanda\ntrades\nfeatures")
    assert ended.endswith(f"{done} trades candles ta features")
    (ended, *_) = docker.run(command, "--cluster", "indicators", "--service", "features", RUNNING=both)
    assert ended.endswith(f"{done} features")
    told = docker.refuses(command, "--cluster", "messagebus", RUNNING="redpanda\nta\nnews")
    assert "news, ta would be left without it: make down cluster=all" in told
    (ended, *_) = docker.run(command, "--cluster", "messagebus", RUNNING="redpanda")
    assert f"{done} redpanda" in ended


@pytest.mark.parametrize(
    ("given", "environ", "removes"),
    [
        (("volumes=1",), {}, True),
        (("volumes=0",), {}, False),
        (("volumes=no",), {}, False),
        ((), {"volumes": "1"}, False),
        ((), {}, False),
    ],
)
def test_data_is_removed_only_by_who_says_so_in_the_command(
    given: tuple[str, ...], environ: dict[str, str], removes: bool
) -> None:
    command = ["make", "--dry-run", "down", "cluster=all", *given]
    said = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("--volumes" in said.stdout) == removes


def test_a_second_history_waits_for_the_first(docker: Docker) -> None:
    told = docker.refuses(*HISTORY, *SINCE, RUNNING="features\nta_historical")
    assert "a history is on its way (ta_historical)" in told
    assert "make down cluster=indicators_historical" in told
    docker.run(*HISTORY, *SINCE, RUNNING="features\nta")


def test_a_history_does_not_meet_a_working_copy_that_live_features_holds(docker: Docker) -> None:
    docker.settings.write_text("FEATURES_STORE=hopsworks\n")
    told = docker.refuses(*HISTORY, *SINCE, RUNNING="features")
    assert "make stop cluster=indicators svc=features first" in told
    docker.run(*HISTORY, *SINCE, RUNNING="trades")


def test_secrets_that_a_service_could_not_read_are_named_before_it_starts(
    docker: Docker, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets" / "ta"
    folder.mkdir(mode=0o700)
    up = ("up", "--cluster", "indicators")
    assert f"chmod o+rX {folder}\n" in docker.refuses(*up)
    docker.run(*up, "--service", "candles")
    folder.chmod(0o755)
    docker.run(*up)
    secret = folder / "KAFKA_SASL_PASSWORD"
    secret.touch(mode=0o600)
    assert f"chmod o+rX {secret}\n" in docker.refuses(*up)
    os.chown(secret, 10001, -1) if os.geteuid() == 0 else secret.chmod(0o644)
    docker.run(*up)
