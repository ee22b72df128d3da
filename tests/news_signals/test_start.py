"""A service whose engine cannot be built ends at once and says why, whether a broker is there or not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_BROKER = {"KAFKA_BROKERS": "127.0.0.1:1", "KAFKA_CONNECT_TIMEOUT_S": "0.2"}
MAIN = ("-m", "services.news_signals.main")
WITHOUT_EXTRA = (
    "-c",
    "import runpy, sys; sys.modules['pydantic_ai'] = None; sys.argv = sys.argv[:1]; "
    "runpy.run_module('services.news_signals.main', run_name='__main__')",
)


def ended(folder: Path, command: tuple[str, ...], **settings: str) -> tuple[int, str]:
    own = {f"NEWS_SIGNALS_{name}": value for name, value in settings.items()}
    ran = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **NO_BROKER, "NEWS_SIGNALS_STATE_DIR": str(folder), **own},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("command", "settings", "says"),
    [
        (MAIN, {}, "NEWS_SIGNALS_LLM_MODEL: the engine llm needs a model, like"),
        (MAIN, {"LLM_MODEL": "gpt-4.1-mini"}, "names no provider; write anthropic:…"),
        (MAIN, {"LLM_MODEL": "openai:gpt-4.1-mini"}, "NEWS_SIGNALS_LLM_API_KEY: openai needs a key"),
        (WITHOUT_EXTRA, {"LLM_MODEL": "ollama:llama3.1"}, "needs pydantic_ai: pip install"),
        (MAIN, {"LLM_DAILY_USD": "1"}, "  NEWS_SIGNALS_LLM_DAILY_USD: a cost cap needs the prices"),
    ],
)
def test_an_llm_that_cannot_be_asked_is_known_before_the_broker_is_looked_for(
    tmp_path: Path, command: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    code, text = ended(tmp_path, command, ENGINE="llm", **settings)
    assert code == 2, text
    assert says in text
    assert "broker" not in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_coin_list_that_is_not_there_is_known_before_the_broker_is_looked_for(tmp_path: Path) -> None:
    code, text = ended(tmp_path, MAIN, COINS_PATH=str(tmp_path / "none.csv"))
    assert code == 2, text
    assert "none.csv" in text
    assert "broker" not in text


@pytest.mark.parametrize(
    "engine", [{"ENGINE": "embedded"}, {"ENGINE": "llm", "LLM_MODEL": "ollama:llama3.1"}]
)
def test_with_its_engine_at_hand_it_ends_for_the_broker_and_lets_go_of_the_engine(
    tmp_path: Path, engine: dict[str, str]
) -> None:
    code, text = ended(tmp_path, MAIN, **engine)
    assert code == 1, text
    assert "BrokerUnavailableError: no broker answers at 127.0.0.1:1" in text
    assert "Traceback" not in text
