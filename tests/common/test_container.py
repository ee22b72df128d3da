"""In a container: the entry point, the health check that ends what hangs, state folders, secrets."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from services.common.container import FAILURES_ALLOWED, check, places
from services.common.errors import SettingsError
from services.common.state import claim_folder
from services.features.settings import FeaturesSettings
from services.news.settings import NewsSettings


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """A service's address, and the status that it answers with."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/health/live", status
    server.shutdown()
    server.server_close()


def test_the_check_ends_a_service_that_stopped_living(
    answering: tuple[str, list[int]], tmp_path: Path
) -> None:
    url, status = answering
    pid, failures = tmp_path / "pid", tmp_path / "failures"
    with subprocess.Popen(["sleep", "60"]) as service:
        pid.write_text(str(service.pid))
        status[0] = 503
        # It is starting, however long that takes.
        assert [check(url, pid, failures) for _ in range(FAILURES_ALLOWED + 1)] == [1] * (
            FAILURES_ALLOWED + 1
        )
        status[0] = 200
        assert check(url, pid, failures) == 0
        status[0] = 503
        assert [check(url, pid, failures) for _ in range(FAILURES_ALLOWED - 1)] == [1] * (
            FAILURES_ALLOWED - 1
        )
        assert service.poll() is None
        assert check(url, pid, failures) == 1
        assert service.wait(timeout=5) == -signal.SIGKILL
    assert check(url, pid, failures) == 1


def test_a_check_of_nobody_fails(tmp_path: Path) -> None:
    assert check("http://127.0.0.1:1/health/live", tmp_path / "pid", tmp_path / "failures") == 1


def test_a_container_listens_to_its_neighbours_and_keeps_files_on_its_volumes() -> None:
    assert places("news_signals") == {
        "NEWS_SIGNALS_HTTP_HOST": "0.0.0.0",
        "NEWS_SIGNALS_HTTP_PORT": "8000",
        "NEWS_SIGNALS_STATE_DIR": "/state",
    }
    assert places("features")["FEATURES_STORE_PATH"] == "/store/features.sqlite"


def test_processes_do_not_share_a_state_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from services.common.state import claim_folder;"
        "print(claim_folder(Path(sys.argv[1]) / 'candles').name, flush=True); sys.stdin.read()"
    )

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def name(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    with start() as first, start() as second:
        assert {name(first), name(second)} == {"candles", "candles-2"}
        assert claim_folder(tmp_path / "candles").name == "candles-3"
        first.kill()
        second.kill()
    with start() as third:
        assert name(third) == "candles"
        third.kill()


def test_a_secret_is_read_from_a_file_that_bears_its_name(tmp_path: Path) -> None:
    (tmp_path / "FEATURES_API_KEY").write_text("a-secret-of-length-16\n")
    (tmp_path / "..data").mkdir()
    settings = FeaturesSettings.load({"FEATURES_API_KEY": ""}, secrets_dir=tmp_path)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "a-secret-of-length-16"
    settings = FeaturesSettings.load({"FEATURES_API_KEY": "another-secret-16"}, secrets_dir=tmp_path)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "another-secret-16"


def test_a_secret_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FEATURES_APIKEY").write_text("a-secret-of-length-16")
    with pytest.raises(
        SettingsError, match="FEATURES_APIKEY: unknown setting; did you mean FEATURES_API_KEY"
    ):
        FeaturesSettings.load({}, secrets_dir=tmp_path)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWS_CRYPTOPANIC_TOKEN", "")
    assert NewsSettings.load(os.environ).cryptopanic_token is None
