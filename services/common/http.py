"""The HTTP face of a service: health, metrics and settings, served from a background thread."""

import socket
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from loguru import logger
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.common.errors import SettingsError
from services.common.health import Health
from services.common.metrics import Metrics

DISTRIBUTION = "crypto-price-predictor"


def build_http_app(
    service: str,
    settings: dict[str, Any],
    health: Health,
    metrics: Metrics,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """The FastAPI application of a service; `settings` must hold no secret."""
    app = FastAPI(title=f"Crypto Price Predictor: {service}", version=version(DISTRIBUTION))

    @app.get("/health/live", tags=["health"], summary="503 when the process should be restarted")
    def live(response: Response) -> dict[str, Any]:
        return _report(response, health.not_live())

    @app.get("/health/ready", tags=["health"], summary="503 with the reasons until data flows")
    def ready(response: Response) -> dict[str, Any]:
        return _report(response, health.not_ready())

    @app.get("/metrics", tags=["health"], summary="Prometheus text")
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/info", tags=["health"], summary="Version and settings, without secrets")
    def info() -> dict[str, Any]:
        return {"service": service, "version": version(DISTRIBUTION), "settings": settings}

    for router in routers:
        app.include_router(router)
    return app


def _report(response: Response, reasons: list[str]) -> dict[str, Any]:
    response.status_code = 503 if reasons else 200
    return {"ok": not reasons, "reasons": reasons}


class HttpServer:
    """uvicorn in a background thread; the main thread belongs to the stream."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        """Bind at once, so that a taken port is an error of the start. Raises `SettingsError`."""
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            # Requests wait in the backlog until uvicorn's thread takes over, instead of being refused.
            self._socket.listen(128)
        except OSError as error:
            self._socket.close()
            raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="http", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        logger.info("HTTP on {}", self.url)

    def stop(self) -> None:
        """Finish open requests and stop."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()
