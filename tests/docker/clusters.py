"""The clusters under a name of their own, driven by `make` as people do."""

import io
import os
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq
import pytest
import requests
from confluent_kafka.admin import AdminClient

from services.common.broker import free_port
from tests.pipeline.support import Rows

ROOT = Path(__file__).parents[2]
IMAGES = ("trades", "candles", "ta", "features", "news", "news_signals")
#: The tests' broker may be a stand-in for Redpanda, which needs what the embedded one needs.
BUS = {
    "KAFKA_EMBEDDED": "true",
    "KAFKA_PARTITIONS": "3",
    "KAFKA_FETCH_WAIT_MS": "50",
    "KAFKA_RETENTION_HOURS": "2",
}
#: So often is a consumer helped on Tansu in one test.
MOST_HELP = 2
#: What features asks its clients for, given as a file.
KEY = "key-of-the-tests-only"
#: Whoever runs the tests may have told Compose about clusters of their own.
OWN = (
    "COMPOSE_",
    "PORT_",
    "IMAGE_",
    "KAFKA_",
    "TRADES_",
    "CLUSTER_ENV",
    "DATA_DIR",
    "SECRETS_DIR",
    "RESTART",
    "REDPANDA_",
    "MAKE",
    "MFLAGS",
)


class Clusters:
    """All clusters in containers, as a context manager that removes every trace."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        secrets = folder / "secrets"
        for name in IMAGES:
            (secrets / name).mkdir(parents=True)
        key = secrets / "features" / "FEATURES_API_KEY"
        key.write_text(KEY)
        # The services' user is not the one who runs the tests.
        for path in (folder, self.data, secrets, *secrets.iterdir()):
            path.chmod(0o755)
        key.chmod(0o644)
        self._settings = folder / "cluster.env"
        #: Since when a service has been seen without partitions.
        self._stranded: dict[str, float] = {}
        self._helped: Counter[str] = Counter()
        self.project = f"cpp-test-{os.getpid()}"
        ports = {
            f"PORT_{name}": str(free_port())
            for name in ("REDPANDA", "TRADES", "FEATURES", "NEWS", "NEWS_SIGNALS")
        }
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.url = f"http://127.0.0.1:{ports['PORT_FEATURES']}"
        self.broker = f"127.0.0.1:{ports['PORT_REDPANDA']}"
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(OWN)},
            **ports,
            "COMPOSE_PROJECT_NAME": self.project,
            "IMAGE_PREFIX": self.project,
            "CLUSTER_ENV": str(self._settings),
            "DATA_DIR": str(self.data),
            "SECRETS_DIR": str(secrets),
            "RESTART": "on-failure",
            # An engine in the same container as the tests can give no more than they have.
            "REDPANDA_NOFILE": str(65536 if most == resource.RLIM_INFINITY else min(most, 65536)),
        }

    def __enter__(self) -> Self:
        self.configure({})
        try:
            self.make("build", "cluster=all", timeout_s=1200)
            self.make("up", "cluster=messagebus")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Everything that the tests made: containers, networks, volumes, images."""
        self.make("down", "cluster=all", "volumes=1", timeout_s=300)
        self.docker("image", "rm", "--force", *(f"{self.project}/{name}" for name in IMAGES))

    def configure(self, settings: dict[str, str]) -> None:
        """Settings of containers that start from now on."""
        lines = [f"{name}={value}" for name, value in {**BUS, **settings}.items()]
        self._settings.write_text("\n".join(lines) + "\n")

    def make(self, target: str, *variables: str, code: int = 0, timeout_s: float = 180) -> str:
        """Output of `make target variables`, which must end with `code`."""
        answer = subprocess.run(
            ["make", "--no-print-directory", target, *variables],
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        assert answer.returncode == code, answer.stdout
        return answer.stdout

    def docker(self, *arguments: str, codes: Collection[int] = (0,)) -> str:
        """Output of `docker arguments`, which must end with one of `codes`."""
        answer = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
        assert answer.returncode in codes, f"docker {' '.join(arguments)}: {answer.stderr}"
        return answer.stdout.strip()

    def containers(self, service: str, *, every: bool = False) -> list[str]:
        """Ids of a service's running containers; with `every` of those that ended too."""
        labels = {"project": self.project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
        return self.docker("ps", "--quiet", *(["--all"] if every else []), *filters).split()

    def inside(self, container: str, code: str) -> str:
        """Output of Python code in a container."""
        return self.docker("exec", container, "python", "-c", code)

    def metrics(self, container: str) -> dict[str, float]:
        """Samples of a container, read over the network that Prometheus would use; none while it starts."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = self.docker("inspect", "--format", form, container)
        (asker,) = self.containers("features")
        code = (
            "from contextlib import suppress\nfrom urllib.request import urlopen\nwith suppress(OSError):\n"
            f" print(urlopen('http://{address}:8000/metrics', timeout=9).read().decode())"
        )
        lines = [line for line in self.inside(asker, code).splitlines() if line and line[0] != "#"]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def answers(self, container: str) -> bool:
        """Whether the service in a container serves its metrics."""
        return self.metrics(container) != {}

    def help_stand_in(self, service: str) -> None:
        """Restart a lone consumer that Tansu left without partitions when others left the group.

        Where that does not help, the group is made anew: it begins with the first trade again, over the state
        that it has. Where that does not help either, the group is lost to Tansu, and the test is skipped.
        Redpanda gives partitions to it, so there this would hide a fault of ours, and is not done.
        """
        found = self.containers(service)
        (broker,) = self.containers("redpanda")
        code = (
            "from urllib.request import urlopen\nfrom urllib.error import HTTPError\n"
            "try: urlopen('http://127.0.0.1:8000/health/ready', timeout=9)\n"
            "except HTTPError as error: print(error.read().decode())\nexcept OSError: pass"
        )
        # One that is starting again at this moment says nothing, and is not stranded.
        said = self.docker("exec", found[0], "python", "-c", code, codes=range(256)) if found else ""
        if "none assigned" not in said:
            self._stranded.pop(service, None)
        elif "tansu" in self.docker("exec", broker, "ls", "/usr/local/bin"):
            since = self._stranded.setdefault(service, time.monotonic())
            if time.monotonic() - since > 15:
                self._helped[service] += 1
                if self._helped[service] <= MOST_HELP:
                    print(f"{service} was left without partitions by the stand-in, restarting it")
                    self.make("restart", "cluster=indicators", f"svc={service}")
                elif self._helped[service] == MOST_HELP + 1:
                    print(f"{service} gets no partitions from the stand-in, making its group anew")
                    self.make("stop", "cluster=indicators", f"svc={service}")
                    admin = AdminClient({"bootstrap.servers": self.broker})
                    admin.delete_consumer_groups([service])[service].result(timeout=30)
                    self.make("up", "cluster=indicators", f"svc={service}")
                else:
                    self._helped[service] = 0
                    pytest.skip(
                        f"the stand-in gives {service} no partitions any more; Redpanda would have to"
                    )
                del self._stranded[service]

    def signal_inside(self, container: str, signal: str) -> None:
        """Let the service crash or freeze by itself, which the engine does not take for our wish."""
        code = f"import os, signal; os.kill(int(open('/tmp/service.pid').read()), signal.SIG{signal})"
        # With the service its container ends, and may take with it the process that asks for that.
        self.docker("exec", container, "python", "-c", code, codes=(0, 137))

    def restarts(self, container: str) -> int:
        """How often the engine started it again by itself."""
        return int(self.docker("inspect", "--format", "{{.RestartCount}}", container))

    def get(self, path: str, **query: Any) -> requests.Response:
        """What features answers at its published port."""
        return requests.get(f"{self.url}{path}", params=query, headers={"X-API-Key": KEY}, timeout=20)

    def ta_rows(self, exchange: str, pairs: tuple[str, ...], timeframes: tuple[str, ...]) -> Rows:
        """Closed rows of `ta`, without the time of writing, under the exchange's place ``*``."""
        found: Rows = {}
        for pair in pairs:
            for timeframe in timeframes:
                query = {"exchange": exchange, "pair": pair, "timeframe": timeframe, "format": "parquet"}
                answer = self.get("/features/ta/history", **query)
                if answer.status_code != 200:
                    continue
                for row in pq.read_table(io.BytesIO(answer.content)).to_pylist():
                    row.pop("ingested_at_ms", None)
                    found["*", pair, timeframe, row["end_ms"]] = {**row, "exchange": "*"}
        return found

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 90) -> None:
        """Poll until `condition` holds; shows the state and logs of the clusters when it does not."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if condition():
                    return
            except requests.RequestException:
                pass
            if time.monotonic() > deadline:
                logs = self.make("logs", "cluster=all", "follow=0")
                raise AssertionError(
                    f"not in {timeout_s:.0f} s: {what}\n{self.make('ps', 'cluster=all')}\n{logs[-6000:]}"
                )
            time.sleep(0.5)
