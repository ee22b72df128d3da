"""A server that speaks the providers' protocols, clocks that only tests move, and engines on both."""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from services.common.metrics import Metrics
from services.news_signals.engines.contract import EngineContext, Mention, Opinion, Story
from services.news_signals.engines.llm import Clocks, LlmEngine, build
from services.news_signals.llm_settings import LlmSettings

KEY = "sk-canary-8f3a1b"
#: 2026-07-07 12:00 UTC.
NOON_S = 1_783_425_600.0
#: Model and the path that its provider is asked at.
MODELS = {
    "anthropic:claude-haiku-4-5": "",
    "openai:gpt-4.1-mini": "/v1",
    "ollama:llama3.1": "/v1",
    "some/model": "/v1",
}
OPENAI = "openai:gpt-4.1-mini"
ANTHROPIC = "anthropic:claude-haiku-4-5"


@dataclass(frozen=True)
class Asked:
    """A request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The user's first message, with the stories."""
        content = next(m["content"] for m in self.body["messages"] if m["role"] == "user")
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    @property
    def stories(self) -> list[tuple[int, list[str], str]]:
        """Number, coins and text of each story, by the marks."""
        return [
            (int(number), coins.split(", "), text)
            for number, coins, text in re.findall(
                r"^#\w{10} story (\d+), asked: (.*)\n((?:.*\n)*?)#\w{10} end of story \1$", self.text, re.M
            )
        ]


@dataclass(frozen=True)
class Reply:
    """What the server sends back; `drip_s` is waited before every byte."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    drip_s: float = 0.0


type Behaviour = Callable[[Asked], Reply]


def rating(number: int, coin: str, p_pos: float, p_neu: float, p_neg: float) -> dict[str, Any]:
    return {"story": number, "coin": coin, "p_pos": p_pos, "p_neu": p_neu, "p_neg": p_neg}


def judged(text: str) -> tuple[float, float, float]:
    """What the server's model thinks of a text."""
    if "surges" in text:
        return 0.8, 0.15, 0.05
    return (0.05, 0.05, 0.9) if "hacked" in text else (0.1, 0.8, 0.1)


def honest(asked: Asked, *, as_text: bool = False) -> Reply:
    """A right answer."""
    ratings = [rating(n, coin, *judged(text)) for n, coins, text in asked.stories for coin in coins]
    answer = {"ratings": ratings}
    return completion(asked, json.dumps(answer) if as_text else answer)


def says(*ratings: dict[str, Any]) -> Behaviour:
    """An answer with these ratings, right or not."""
    return says_arguments({"ratings": list(ratings)})


def says_arguments(arguments: Any) -> Behaviour:
    return lambda asked: completion(asked, arguments)


def completion(asked: Asked, arguments: Any, *, finish: str | None = None, usage: bool = True) -> Reply:
    """A whole answer in the protocol of the request; `arguments` as text is sent as it is."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if asked.path.endswith("/messages"):
        block = {"type": "tool_use", "id": "t1", "name": "ratings", "input": arguments}
        body: dict[str, Any] = {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": asked.body["model"],
            "content": [block] if isinstance(arguments, dict) else [{"type": "text", "text": text}],
            "stop_reason": finish or "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 700, "output_tokens": 40},
        }
        return reply(body)
    if asked.body.get("tools"):
        call = {"id": "c1", "type": "function", "function": {"name": "ratings", "arguments": text}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": asked.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish or "stop"}],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 700, "completion_tokens": 40, "total_tokens": 740}
    return reply(body)


def refuses(asked: Asked) -> Reply:
    """The model will not answer."""
    if asked.path.endswith("/messages"):
        return completion(asked, "", finish="refusal")
    body = json.loads(completion(asked, "").body)
    body["choices"][0]["message"] = {
        "role": "assistant",
        "content": None,
        "refusal": "I can't help with that.",
    }
    return reply(body)


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"content-type": "application/json", **named})


def error(status: int, message: str = "no", **headers: str) -> Behaviour:
    body = {"type": "error", "error": {"type": "some_error", "message": message, "code": None}}
    return lambda _: reply(body, status, **headers)


class FakeLlm:
    """Answers requests with `script`, one behaviour each, and `otherwise` when it is used up."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.script: deque[Behaviour] = deque()
        self.otherwise: Behaviour = honest


@contextmanager
def fake_llm() -> Iterator[FakeLlm]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            llm.asked.append(asked)
            try:
                sent = (llm.script.popleft() if llm.script else llm.otherwise)(asked)
            except Exception as error:
                broken.append(error)
                raise
            released.wait(sent.wait_s)
            try:
                self.send_response(sent.status)
                for name, value in {"content-length": str(len(sent.body)), **sent.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if not sent.drip_s:
                    self.wfile.write(sent.body)
                    return
                for byte in sent.body:
                    self.wfile.write(bytes([byte]))
                    if released.wait(sent.drip_s):
                        return
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

    released = threading.Event()
    broken: list[Exception] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    llm = FakeLlm(server.server_address[1])
    # Its default looks for the end every half second.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield llm
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()
        # To the engine it would only look like a broken connection.
        assert not broken


def temporary_folder() -> TemporaryDirectory[str]:
    """A folder in memory where the system has one: every transaction here waits for the disk otherwise."""
    memory = Path("/dev/shm")
    return TemporaryDirectory(dir=memory if memory.is_dir() else None)


class FakeClocks:
    """Time that passes only in sleeps and when a test says so."""

    def __init__(self) -> None:
        self.now_s = NOON_S
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def clocks(self) -> Clocks:
        return Clocks(self, self, self.sleep, lambda: 0.5)


class FakeFallback:
    """An engine that finds everything neutral, and remembers what it was asked."""

    def __init__(self) -> None:
        self.scored: list[str] = []
        self.closed = False

    def score(self, stories: Any) -> list[tuple[Opinion, ...]]:
        self.scored += [story.title for story in stories]
        return [tuple(Opinion(0.0, 1.0, 0.0, 0, "embedded", "fake") for _ in s.coins) for s in stories]

    def close(self) -> None:
        self.closed = True


def settings_for(llm_url: str, model: str = OPENAI, **given: Any) -> LlmSettings:
    fields = {"model": model, "base_url": llm_url + MODELS.get(model, ""), "api_key": KEY, **given}
    return LlmSettings.load(
        {f"NEWS_SIGNALS_LLM_{k.upper()}": str(v) for k, v in fields.items() if v is not None}
    )


@dataclass
class Bench:
    """An engine on the fake server."""

    llm: FakeLlm
    folder: Path
    time: FakeClocks
    fallback: FakeFallback
    metrics: Metrics
    engine: LlmEngine

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def engines(self, *stories: Story) -> list[str]:
        """Who answers for each story."""
        return [opinions[0].engine for opinions in self.engine.score(stories)]


def open_bench(llm: FakeLlm, folder: Path, time: FakeClocks | None = None, **given: Any) -> Bench:
    """The engine of `settings_for`; the same `folder` makes it a restart."""
    time, fallback, metrics = time or FakeClocks(), FakeFallback(), Metrics()
    context = EngineContext(settings_for(llm.url, **given), metrics, folder, lambda: fallback)
    return Bench(llm, folder, time, fallback, metrics, build(context, time.clocks()))


def story(title: str, *coins: str, body: str = "") -> Story:
    return Story(title, body, coins or ("BTC",), (Mention("BTC", 0, 3),))
