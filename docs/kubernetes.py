"""Manifests for Kubernetes from the services of `docker-compose/services.yml`; `make docs` writes them.

Each service becomes a StatefulSet, whose pods keep a state volume each, as replicas of candles and ta need.
"""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
NAME = "crypto-price-predictor"
USER = 10001
PORT = 8000
VOLUME_SIZES = {"state": "2Gi", "store": "20Gi"}
HEAD = """\
# Made by `make docs` from docker-compose/services.yml; ARCHITECTURE.md says how to use it.
"""


def services() -> dict[str, Any]:
    """The services as Compose has them."""
    text = (ROOT / "docker-compose" / "services.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def default_of(text: str) -> str:
    """`text` with Compose's variables replaced by their defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def settings_of(service: str) -> dict[str, str]:
    """What the service's example settings set, but for addresses and folders, which are the image's."""
    lines = (ROOT / "services" / service / ".env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    own = re.compile(r"KAFKA_BROKERS|\w+_(HTTP_HOST|HTTP_PORT|STATE_DIR|STORE_PATH)")
    return {name: value for name, _, value in pairs if value and not own.fullmatch(name)}


def manifests() -> list[dict[str, Any]]:
    """All resources."""
    bus = {"KAFKA_BROKERS": "redpanda.redpanda.svc.cluster.local:9093", "KAFKA_REPLICATION_FACTOR": "3"}
    found = [_config("bus", bus)]
    for service, described in services().items():
        found += [
            _config(_host(service), settings_of(service)),
            _service(service),
            _stateful_set(service, described),
        ]
    return found


def manifests_text() -> str:
    """Text of `docs/kubernetes.yaml`."""
    return HEAD + "".join("---\n" + yaml.safe_dump(one, sort_keys=False, width=110) for one in manifests())


def _host(service: str) -> str:
    return service.replace("_", "-")


def _meta(name: str) -> dict[str, Any]:
    return {"name": name, "labels": {"app.kubernetes.io/part-of": NAME, "app.kubernetes.io/name": name}}


def _config(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(name), "data": data}


def _service(service: str) -> dict[str, Any]:
    name = _host(service)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(name),
        "spec": {
            "selector": {"app.kubernetes.io/name": name},
            # Its answers say how old they are; without readers it would only be gone.
            **({"publishNotReadyAddresses": True} if service == "features" else {}),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        },
    }


def _stateful_set(service: str, described: dict[str, Any]) -> dict[str, Any]:
    name = _host(service)
    volumes = [text.partition(":")[0] for text in described["volumes"]]
    claimed = [volume for volume in volumes if volume in VOLUME_SIZES]
    pod = {
        # Otherwise Kubernetes sets FEATURES_PORT and the like, which settings refuse as unknown.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 40,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service, described, claimed)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            # Its keys are names of settings, such as FEATURES_API_KEY.
            {"name": "secrets", "secret": {"secretName": f"{name}-secrets", "optional": True}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _meta(name),
        "spec": {
            "serviceName": name,
            "replicas": 1,
            # Ready means fresh data, for which a pod must not wait on its neighbours.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {
                    "labels": _meta(name)["labels"],
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT)},
                },
                "spec": pod,
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": volume},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": VOLUME_SIZES[volume]}},
                    },
                }
                for volume in claimed
            ],
        },
    }


def _container(service: str, described: dict[str, Any], claimed: list[str]) -> dict[str, Any]:
    limits = described["deploy"]["resources"]["limits"]
    memory = limits["memory"].replace("M", "Mi").replace("G", "Gi")

    def probe(path: str, **times: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 5, **times}

    return {
        "name": _host(service),
        "image": default_of(described["image"]),
        "ports": [{"name": "http", "containerPort": PORT}],
        "envFrom": [{"configMapRef": {"name": "bus"}}, {"configMapRef": {"name": _host(service)}}],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": str(limits["cpus"]), "memory": memory},
        },
        "startupProbe": probe("/health/live", periodSeconds=2, failureThreshold=60),
        "livenessProbe": probe("/health/live", periodSeconds=10, failureThreshold=3),
        "readinessProbe": probe("/health/ready", periodSeconds=10),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            *({"name": volume, "mountPath": f"/{volume}"} for volume in claimed),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True},
        ],
    }
