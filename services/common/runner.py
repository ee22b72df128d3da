"""`run_service`: the whole of our framework. HTTP in a thread, the stream in the main thread."""

import argparse
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fastapi import APIRouter
from loguru import logger

from services.common.errors import ServiceError, SettingsError, SourceError, SourceUnavailableError
from services.common.health import Health
from services.common.http import HttpServer, build_http_app
from services.common.logs import configure_logging
from services.common.metrics import Metrics
from services.common.settings import BrokerSettings, ServiceSettings


class Pipeline(Protocol):
    """What a service runs: `run` blocks until SIGTERM or Ctrl-C and raises when the stream dies."""

    def run(self) -> None:
        """Run in the main thread until told to stop."""


@dataclass
class Context:
    """What a pipeline is given besides its settings."""

    service: str
    broker: BrokerSettings
    health: Health
    metrics: Metrics
    #: Routers that the pipeline adds to the HTTP face.
    routers: list[APIRouter] = field(default_factory=list)


def run_service[S: ServiceSettings](
    service: str,
    settings_type: type[S],
    build_pipeline: Callable[[S, Context], Pipeline],
    env_file: Path | None = None,
) -> int:
    """Run a service until it is stopped; returns the exit code of the process.

    0 after SIGTERM, Ctrl-C or the end of a finite source; 2 when what it was given is wrong, settings or a
    source, so that the same again is refused again; 1 when the stream died. An exception that is no
    `ServiceError` is a bug and is raised.
    """
    try:
        settings = settings_type.load(env_file=env_file)
        broker = BrokerSettings.load(env_file=env_file)
    except SettingsError as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2
    configure_logging(service, settings.log_level, settings.log_format)
    health = Health(settings.stale_after_s)
    context = Context(service, broker, health, Metrics())
    server: HttpServer | None = None
    try:
        pipeline = build_pipeline(settings, context)
        shown = {"service": _public(settings), "kafka": _public(broker)}
        app = build_http_app(service, shown, health, context.metrics, context.routers)
        server = HttpServer(app, settings.http_host, settings.http_port)
        server.start()
        # What was imported stays; looking through it again and again only costs time.
        gc.freeze()
        pipeline.run()
    except SettingsError as error:
        logger.error("{}", error)
        return 2
    except ServiceError as error:
        logger.error("{}: {}", type(error).__name__, error)
        refused = isinstance(error, SourceError) and not isinstance(error, SourceUnavailableError)
        return 2 if refused else 1
    finally:
        if server is not None:
            server.stop()
    logger.info("stopped")
    return 0


def env_file_argument() -> Path | None:
    """The `--env-file` of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-file", type=Path, help="file with settings; the environment goes before it")
    path: Path | None = parser.parse_args().env_file
    return path


def _public(settings: Any) -> dict[str, Any]:
    # pydantic writes a SecretStr as asterisks.
    public: dict[str, Any] = settings.model_dump(mode="json")
    return public
