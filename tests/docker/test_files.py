"""What surrounds the clusters, held to the code without an engine: Compose, images, monitoring, manifests."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from docs.dashboard import dashboard_text
from docs.generate import SETTINGS
from docs.kubernetes import manifests, manifests_text
from services.common.settings import BrokerSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker-compose"
CLUSTERS = {
    "messagebus": {"redpanda", "console"},
    "indicators": {"trades", "candles", "ta", "features"},
    "indicators_historical": {f"{name}_historical" for name in ("trades", "candles", "ta", "features")},
    "sentiment_signals": {"news", "news_signals", "features"},
}
SERVICES: dict[str, Any] = yaml.safe_load((FOLDER / "services.yml").read_text())["services"]
BIN = Path(sys.executable).parent


def compose(cluster: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{cluster}.yml").read_text())
    return found


def cluster_command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "cluster.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": "", **environ}, timeout=30)


def test_the_compose_files_keep_to_the_specification() -> None:
    files = [str(path) for path in FOLDER.glob("*.yml")]
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stdout


def test_the_dockerfile_has_no_lint() -> None:
    answer = subprocess.run(
        [BIN / "hadolint", FOLDER / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_cluster_has_the_services_that_it_is_documented_with(cluster: str) -> None:
    found = compose(cluster)["services"]
    assert found.keys() == CLUSTERS[cluster]
    answer = cluster_command("ps", "--cluster", cluster, "--service", "nothing")
    listed = re.search(r"svc=(\S+)", answer.stderr)
    assert listed is not None
    assert set(listed[1].split("|")) == {name.removesuffix("_historical") for name in found}
    for name, service in found.items():
        if cluster != "messagebus":
            assert service["extends"]["service"] == name.removesuffix("_historical")


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_the_service_that_it_is_named_after(service: str) -> None:
    described = SERVICES[service]
    assert described["build"]["args"]["SERVICE"] == service
    assert f"/{service}:" in described["image"]
    assert described["env_file"][0] == f"../services/{service}/.env"
    assert f"${{SECRETS_DIR:-./secrets}}/{service}:/run/secrets:ro,z" in described["volumes"]
    assert (FOLDER / "secrets" / service / ".gitkeep").exists()


@pytest.mark.parametrize("service", SERVICES)
def test_a_published_port_is_on_this_machine_only_and_that_of_the_example_settings(service: str) -> None:
    published = [
        port
        for cluster in CLUSTERS
        for name, described in compose(cluster)["services"].items()
        for port in described.get("ports", [])
        if name == service
    ]
    settings: Any = SETTINGS[service].load({}, env_file=ROOT / "services" / service / ".env")
    for port in published:
        assert port == f"127.0.0.1:${{PORT_{service.upper()}:-{settings.http_port}}}:8000"
    assert bool(published) == (service not in ("candles", "ta")), "replicas would collide at a port"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("up",), "which cluster? cluster=messagebus|indicators|indicators_historical|sentiment_signals|all"),
        (("up", "--cluster", "indicator"), "unknown cluster 'indicator' cluster=messagebus|"),
        (("logs", "--cluster", "sentiment_signals", "--service", "ta"), "svc=news|news_signals|features"),
        (("up", "--cluster", "indicators", "--service", "trades", "--replicas", "2"), "svc=candles|ta"),
        (("up", "--cluster", "indicators", "--since", "2024-01-01"), "cluster=indicators_historical"),
        (("down", "--cluster", "indicators", "--volumes"), "cluster=all only"),
    ],
)
def test_a_command_for_what_does_not_exist_lists_what_does(arguments: tuple[str, ...], told: str) -> None:
    answer = cluster_command(*arguments)
    assert answer.returncode == 2
    assert told in answer.stderr


def test_without_docker_a_command_says_so() -> None:
    answer = cluster_command("up", "--cluster", "indicators")
    assert answer.returncode == 1
    assert "no docker on this machine" in answer.stderr


def test_prometheus_asks_every_service() -> None:
    (job,) = yaml.safe_load((ROOT / "docs" / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) == set.union(*CLUSTERS.values()) - {"redpanda", "console"}


def test_the_dashboard_is_the_one_of_the_code_and_asks_for_metrics_that_exist() -> None:
    text = (ROOT / "docs" / "grafana-dashboard.json").read_text()
    assert text == dashboard_text(), "run `make docs`"
    rows = re.findall(
        r"^\| (?:every|[a-z_]+) \| (`\w+.*`.*) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M
    )
    known = {metric for row in rows for metric in re.findall(r"`(\w+)`", row)}
    known |= {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
    queries = [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        promql_parser.parse(query)
        bare = re.sub(r"\bby \([^)]*\)|\[\w+\]", "", query)
        bare = re.sub(r"\b[a-z_]+\s*\(", "(", bare)
        names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\b[a-z_]{2,}\b", bare)}
        assert names, query
        assert names - known == set(), query


def test_the_manifests_are_those_of_the_services_and_valid() -> None:
    assert (ROOT / "docs" / "kubernetes.yaml").read_text() == manifests_text(), "run `make docs`"
    found = manifests()
    sets = [one["metadata"]["name"] for one in found if one["kind"] == "StatefulSet"]
    assert sets == [name.replace("_", "-") for name in SERVICES]
    for one in found:
        for version in ("1.33", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(one, version, strict=True)


def test_the_settings_in_the_manifests_are_valid() -> None:
    configs = {one["metadata"]["name"]: one["data"] for one in manifests() if one["kind"] == "ConfigMap"}
    BrokerSettings.load(configs.pop("bus"))
    for name, data in configs.items():
        SETTINGS[name.replace("-", "_")].load(data)
