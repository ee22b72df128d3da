"""The side of Hopsworks that its client talks to: REST over HTTPS with what the client reads of each answer.

It proves what we send and how we take answers; it is not a Hopsworks. What the cluster does with the rows is
in `model.py`.
"""

import json
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from confluent_kafka.admin import AdminClient, NewTopic

PROJECT = "crypto"
PROJECT_ID = 119
STORE_ID = 67
#: Begins like no word, so that a search for it in a log finds nothing else.
API_KEY = "CaNaRy-0123456789abcdef.SECRETPARTOFTHEKEY"
CERTIFICATE_PASSWORD = "CaNaRy-certificate-password"
AVRO = {"string": "string", "bigint": "long", "double": "double", "boolean": "boolean"}
STORE = {
    "featurestoreId": STORE_ID,
    "featurestoreName": f"{PROJECT}_featurestore",
    "projectId": PROJECT_ID,
    "projectName": PROJECT,
    "offlineFeaturestoreName": f"{PROJECT}_featurestore",
    "onlineEnabled": True,
    "created": "2026-01-01T00:00:00Z",
}


class ProblemError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.body = {"errorCode": code, "errorMsg": text}


class Fault(NamedTuple):
    """What happens to requests whose method and path fit."""

    pattern: str
    status: int | None = None
    delay_s: float = 0.0


class Stub:
    """A server for one project on this machine, as a context manager."""

    def __init__(self, server_file: Path, brokers: str) -> None:
        self.brokers = brokers
        self.groups: dict[tuple[str, int], dict[str, Any]] = {}
        self.views: dict[tuple[str, int], dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.bodies: list[tuple[str, Any]] = []
        self.faults: list[Fault] = []
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server_file)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> "Stub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def topic(self, name: str, version: int = 1) -> str:
        topic: str = self.groups[name, version]["onlineTopicName"]
        return topic

    def schema(self, name: str, version: int = 1) -> dict[str, Any]:
        """The Avro schema of a group's rows, in which everything may be null, as Hopsworks makes it."""
        features = self.groups[name, version]["features"]
        return {
            "type": "record",
            "name": f"{name}_{version}",
            "namespace": f"{PROJECT}_featurestore.db",
            "fields": [{"name": f["name"], "type": ["null", AVRO[f["type"]]]} for f in features],
        }

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        project = f"project/{PROJECT_ID}"
        store = f"{project}/featurestores/{STORE_ID}"
        routes: list[tuple[str, Callable[..., Any]]] = [
            ("GET variables/versions", lambda: [{"software": "hopsworks", "version": "5.2.1"}]),
            ("GET variables/(.+)", lambda _: {"successMessage": ""}),
            ("GET project/getProjectInfo/(.+)", self._project),
            ("GET project", lambda: [{"user": {"username": "tester"}}]),
            (f"GET {project}/credentials", self._credentials),
            (f"GET {project}/featurestores/[^/]+", lambda: STORE),
            (f"GET {store}/featuregroups/([a-z_]+)", lambda name: self._group(name, query)),
            (f"POST {store}/featuregroups", lambda: self._make_group(body)),
            (f"GET {store}/featuregroups/[0-9]+/expectationsuite", lambda: {"count": 0}),
            (f"POST {store}/featuregroups/[0-9]+/online_ingestion", lambda: {"id": 1}),
            (f"GET {store}/storageconnectors/kafka_connector/byok", self._connector),
            (f"GET {store}/kafka/subjects/(.+)_([0-9]+)/versions/latest", self._subject),
            (f"GET {project}/jobs/([^/]+)", self._job),
            (f"(?:PUT|POST) {project}/jobs/([^/]+)/schedule/v2", lambda job: self._schedule(job, body)),
            (f"GET {store}/featureview/([a-z_]+)/version/([0-9]+)", self._view),
            (f"GET {store}/featureview/[a-z_]+/version/[0-9]+/preparedstatement", lambda: {"count": 0}),
            (
                f"POST {store}/featureview/([a-z_]+)/version/([0-9]+)/query/batch",
                lambda name, version: self.views[name, int(version)]["query"] | {"filter": body},
            ),
            (f"PUT {project}/featurestores/query", self._construct),
            (f"GET {store}/storageconnectors/onlinefeaturestore", self._online_connector),
            (f"POST {store}/featureview", lambda: self._make_view(body)),
        ]
        for pattern, make in routes:
            found = re.fullmatch(pattern, f"{method} {path}")
            if found is not None:
                return make(*found.groups())
        raise ProblemError(404, 0, f"the stub does not know {method} {path}")

    def _project(self, name: str) -> Any:
        if name != PROJECT:
            raise ProblemError(404, 150004, "No project was found")
        return {"projectId": PROJECT_ID, "projectName": PROJECT}

    def _credentials(self) -> Any:
        names = ("caChain", "clientCert", "clientKey")
        stores = {"kStore": "a2V5cw==", "tStore": "dHJ1c3Q="}
        return {name: f"{name} PEM" for name in names} | stores | {"password": CERTIFICATE_PASSWORD}

    def _group(self, name: str, query: dict[str, list[str]]) -> Any:
        group = self.groups.get((name, int(query["version"][0])))
        if group is None:
            raise ProblemError(404, 270009, "Feature group wasn't found")
        return [group]

    def _make_group(self, body: Any) -> Any:
        number = len(self.groups) + 1
        name, version = body["name"], body["version"]
        body |= {
            "id": number,
            "type": "streamFeatureGroupDTO",
            "featurestoreId": STORE_ID,
            "featurestoreName": STORE["featurestoreName"],
            # The broker outlives this server, and the next one begins without rows.
            "onlineTopicName": f"{PROJECT_ID}_{self.port}_{number}_{name}_{version}_onlinefs",
            "created": "2026-01-01T00:00:00Z",
            "creator": {"username": "tester"},
            "location": "hopsfs://stub",
        }
        for feature in body["features"]:
            feature["onlineType"] = feature["type"]
        self.groups[name, version] = body
        admin = AdminClient({"bootstrap.servers": self.brokers})
        (made,) = admin.create_topics([NewTopic(body["onlineTopicName"], 1, 1)]).values()
        made.result(20)
        return body

    def _connector(self) -> Any:
        return {
            "id": 1,
            "name": "kafka_connector",
            "storageConnectorType": "KAFKA",
            "featurestoreId": STORE_ID,
            "bootstrapServers": self.brokers,
            "securityProtocol": "PLAINTEXT",
            "sslEndpointIdentificationAlgorithm": "",
            "externalKafka": True,
            "options": [],
        }

    def _construct(self) -> Any:
        return {"query": "", "queryOnline": "", "onDemandFeatureGroups": [], "hudiCachedFeatureGroups": []}

    def _online_connector(self) -> Any:
        return {
            "id": 2,
            "name": "onlinefeaturestore",
            "storageConnectorType": "JDBC",
            "featurestoreId": STORE_ID,
            "connectionString": "jdbc:mysql://127.0.0.1:3306/crypto",
            "arguments": [],
        }

    def _subject(self, name: str, version: str) -> Any:
        return {"id": 7, "schema": json.dumps(self.schema(name, int(version)))}

    def _job(self, name: str) -> Any:
        job: dict[str, Any] = {
            "id": 1,
            "name": name,
            "creationTime": "2026-01-01T00:00:00Z",
            "config": {"defaultArgs": "-op offline_fg_materialization"},
            "jobType": "PYSPARK",
            "creator": {"username": "tester"},
        }
        return job | ({"jobSchedule": self.schedules[name]} if name in self.schedules else {})

    def _schedule(self, job: str, body: Any) -> Any:
        self.schedules[job] = body | {"id": len(self.schedules) + 1}
        return self.schedules[job]

    def _view(self, name: str, version: str) -> Any:
        if (name, int(version)) not in self.views:
            raise ProblemError(404, 270181, "Feature view wasn't found")
        return self.views[name, int(version)]

    def _make_view(self, body: Any) -> Any:
        self.views[body["name"], body["version"]] = body | {
            "id": len(self.views) + 1,
            "featurestoreId": STORE_ID,
            "created": "2026-01-01T00:00:00Z",
        }
        return self.views[body["name"], body["version"]]


class _Handler(BaseHTTPRequestHandler):
    stub: Stub
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/hopsworks-api/api/")
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        called = f"{self.command} {path}"
        self.stub.requests.append(called)
        try:
            for fault in list(self.stub.faults):
                if re.search(fault.pattern, called):
                    if fault.delay_s:
                        self.stub.released.wait(fault.delay_s)
                    if fault.status is not None:
                        # Servers repeat what they were sent, so that a log of it shows.
                        raise ProblemError(fault.status, 1, f"no, {self.headers.get('Authorization')}")
            if self.headers.get("Authorization") != f"ApiKey {API_KEY}":
                raise ProblemError(401, 320004, "No valid API key found")
            body = json.loads(raw) if raw else None
            self.stub.bodies.append((called, body))
            status, answer = 200, self.stub.answer(self.command, path, parse_qs(parts.query), body)
        except ProblemError as problem:
            status, answer = problem.status, problem.body
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            # Clients that do not trust us, or that gave up waiting.
            self.close_connection = True

    do_GET = do_POST = do_PUT = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass
