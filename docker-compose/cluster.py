"""What `make build`, `up`, `down`, `stop`, `restart`, `logs` and `ps` do: Docker Compose on a cluster.

All clusters are one Compose project. They share its network, volumes and, where two contain the same service
(features), its container. Needs nothing but Docker and Python's standard library.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import historical
from checks import FOLDER, Settings, UsageError, check_secrets

HISTORICAL = "indicators_historical"
SERVICES = {
    "messagebus": ("redpanda",),
    "indicators": ("trades", "candles", "ta", "features"),
    HISTORICAL: ("trades", "candles", "ta", "features"),
    "sentiment_signals": ("news", "news_signals", "features"),
}
#: Only started by name.
OPTIONAL = {"messagebus": ("console",)}
COMMANDS = ("build", "up", "down", "stop", "restart", "logs", "ps")
#: Sources would send everything twice, and one process writes the store's file.
SCALABLE = ("candles", "ta")


def containers(cluster: str, service: str | None) -> list[str]:
    """Names that the services of a cluster, or one of them, have in its file. Raises `UsageError`."""
    if cluster == "all":
        if service:
            raise UsageError("svc= needs the cluster that the service is in")
        return list(dict.fromkeys(name for one in SERVICES for name in containers(one, None)))
    if cluster not in SERVICES:
        problem = f"unknown cluster {cluster!r}" if cluster else "which cluster?"
        raise UsageError(f"{problem} cluster={'|'.join((*SERVICES, 'all'))}")
    known = SERVICES[cluster] + (OPTIONAL.get(cluster, ()) if service else ())
    if service and service not in known:
        raise UsageError(f"no service {service!r} in {cluster}; svc={'|'.join(known)}")
    suffix = "_historical" if cluster == HISTORICAL else ""
    return [name + suffix for name in ((service,) if service else known)]


class Compose:
    """`docker compose` on the file of a cluster."""

    def __init__(self, cluster: str, environ: dict[str, str]) -> None:
        self.environ = {**os.environ, **environ, "COMPOSE_IGNORE_ORPHANS": "true"}
        if not sys.stdout.isatty():
            self.environ["COMPOSE_ANSI"] = "never"
        self._file = FOLDER / f"{cluster}.yml"

    def run(self, *arguments: str) -> int:
        """Exit code of `docker compose …`; its output is ours."""
        return subprocess.run(self._command(arguments), env=self.environ, check=False).returncode

    def names(self, *arguments: str) -> list[str]:
        """Services that have a container; `arguments` choose, like ``--status=running``."""
        # Of all clusters, since they are one project.
        command = ["docker", "compose", "-f", str(FOLDER / "all.yml"), "ps", "--format", "{{.Service}}"]
        answer = subprocess.run(
            [*command, *arguments], env=self.environ, check=False, capture_output=True, text=True
        )
        return answer.stdout.split()

    def own_broker(self) -> str | None:
        """The broker that is used in place of redpanda, if any. Raises `UsageError`."""
        broker = Settings(self.environ).given("KAFKA_BROKERS")
        if broker and broker.startswith(("localhost", "127.", "[::1]")):
            raise UsageError(f"KAFKA_BROKERS={broker} is the host's; a container that asks there asks itself")
        return broker

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return ["docker", "compose", "-f", str(self._file), *arguments]


def up(compose: Compose, cluster: str, names: list[str], replicas: int | None) -> int:
    """Start what is not running or has changed, the message bus before it. Raises `UsageError`."""
    options = ["--detach"]
    own_broker = cluster != "messagebus" and compose.own_broker()
    if cluster == "all":
        # History begins somewhere, so it is started by name.
        names = [name for name in names if not name.endswith("_historical")]
        names = [name for name in names if name != "redpanda" or not own_broker]
    if cluster == "messagebus":
        options.append("--wait")
    else:
        services = [name.removesuffix("_historical") for name in names if name != "redpanda"]
        check_secrets(Settings(compose.environ), services)
    if own_broker:
        options.append("--no-deps")
    running = compose.names("--status=running", "--status=restarting")
    if cluster == HISTORICAL:
        check_alone(compose, running)
        if compose.environ.get("CANDLES_SOURCE") == "archive":
            # One of an earlier run would take part in a restart.
            names.remove("trades_historical")
            if "trades_historical" in compose.names("--all"):
                compose.run("rm", "--force", "trades_historical")
    there = compose.names("--all")
    for name in names:
        if name.removesuffix("_historical") in SCALABLE:
            # Without a number, as many as there are, also when they have stopped.
            options.append(f"--scale={name}={replicas or max(1, there.count(name))}")
    return compose.run("up", *options, *names)


def check_alone(compose: Compose, running: list[str]) -> None:
    """Raises `UsageError` when what runs is in the way of a history."""
    earlier = [name for name in dict.fromkeys(running) if name.endswith("_historical")]
    if earlier:
        raise UsageError(
            f"a history is on its way ({', '.join(earlier)}): wait for its end, or "
            f"make down cluster={HISTORICAL}"
        )
    if "features" in running and Settings(compose.environ).of("features", "FEATURES_STORE") == "hopsworks":
        raise UsageError(
            "FEATURES_STORE=hopsworks: one process holds the working copy, so make stop cluster=indicators "
            "svc=features first, and start it again after the history"
        )


def without_shared(cluster: str, names: list[str], there: set[str]) -> list[str]:
    """Those of a cluster's services that no other cluster needs, of what is `there`. Raises `UsageError`."""
    others = there.difference(names, SERVICES["messagebus"], OPTIONAL["messagebus"])
    if cluster == "messagebus" and others:
        raise UsageError(
            f"{', '.join(sorted(others))} would be left without it: make down cluster=all ends everything, "
            "svc=redpanda the broker alone"
        )
    if "features" in names and others & {"trades", "candles", "ta", "news", "news_signals"}:
        sys.stderr.write("features stays: another cluster writes through it\n")
        return [name for name in names if name != "features"]
    return names


def down(compose: Compose, cluster: str, names: list[str], service: str | None, volumes: bool) -> int:
    """Remove the containers; with the last one the network, with `volumes` all data."""
    if cluster == "all":
        return compose.run("--profile=*", "down", *(["--volumes"] if volumes else []))
    there = set(compose.names("--all"))
    if not service:
        names = without_shared(cluster, [*names, *OPTIONAL.get(cluster, ())], there)
    code = compose.run("--profile=*", "rm", "--stop", "--force", *names)
    if code == 0 and there and not compose.names("--all"):
        return Compose("all", {}).run("down")
    return code


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code of Compose. Raises `UsageError`."""
    cluster, service, command = arguments.cluster, arguments.service or None, arguments.command
    names = containers(cluster, service)
    given = {name: getattr(arguments, name) for name in historical.OPTIONS if getattr(arguments, name)}
    if given and cluster != HISTORICAL:
        raise UsageError(f"{'=, '.join(given)}=: only for cluster={HISTORICAL}; live, settings say it")
    if arguments.replicas and not (arguments.replicas.isdecimal() and 1 <= int(arguments.replicas) <= 64):
        raise UsageError(f"replicas={arguments.replicas}: say a number from 1 to 64")
    replicas = int(arguments.replicas) if arguments.replicas else None
    if cluster == HISTORICAL and (replicas is not None or (service and command == "up")):
        raise UsageError(
            "a history runs whole and every service once, since each counts the series that ended: "
            "leave out replicas= and svc=; make restart takes svc= and goes on"
        )
    if replicas is not None and (command != "up" or service not in SCALABLE):
        raise UsageError(f"replicas= goes with make up and svc={'|'.join(SCALABLE)}; the others run once")
    if arguments.volumes and cluster != "all":
        raise UsageError("volumes=1 removes all data, so it goes with make down cluster=all only")
    environ = {}
    if cluster == HISTORICAL and command == "up":
        environ = historical.environment(given, Settings(os.environ))
    if shutil.which("docker") is None:
        sys.stderr.write("there is no docker on this machine; make demo runs without it\n")
        return 1
    compose = Compose(cluster, environ)
    if command == "build":
        own = [name for name in names if name not in ("redpanda", "console")]
        if cluster == "all":
            # Theirs are the images of the live ones, and a second build of one only leaves the first behind.
            own = [name for name in own if not name.endswith("_historical")]
        return compose.run("build", *own) if own else compose.run("pull", "--ignore-pull-failures", *names)
    if command == "up":
        return up(compose, cluster, names, replicas)
    if command == "down":
        return down(compose, cluster, names, service, arguments.volumes)
    if command == "logs":
        return compose.run("logs", "--tail=200", *(["--follow"] if arguments.follow else []), *names)
    if command == "stop" and cluster != "all" and not service:
        names = without_shared(cluster, names, set(compose.names("--status=running", "--status=restarting")))
    return compose.run(command, *(["--all"] if command == "ps" else []), *names)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 2 when something was asked for that does not exist."""
    parser = argparse.ArgumentParser(prog="cluster.py", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--cluster", default="")
    parser.add_argument("--service", default="")
    parser.add_argument("--replicas", default="")
    parser.add_argument("--volumes", action="store_true")
    parser.add_argument("--follow", action="store_true")
    for name in historical.OPTIONS:
        parser.add_argument(f"--{name}", default="")
    try:
        return run(parser.parse_args(argv))
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
