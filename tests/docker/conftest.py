"""One set of clusters for all tests that need an engine; nothing of it stays."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.docker.clusters import Clusters

HELP = """no Docker engine answers, and these tests run in one.
Start it (on most systems: `sudo systemctl start docker`), or Docker Desktop, and try again."""


@pytest.fixture(scope="session")
def engine() -> None:
    """An engine that answers. Its absence is an error, so that nobody takes nothing for a success."""
    try:
        answer = subprocess.run(["docker", "compose", "ls"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.exit(f"docker is not installed; {HELP}", returncode=1)
    if answer.returncode:
        pytest.exit(f"{HELP}\n{answer.stderr}", returncode=1)


@pytest.fixture(scope="session")
def clusters(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """The images built and the message bus up."""
    with Clusters(tmp_path_factory.mktemp("clusters")) as running:
        yield running
