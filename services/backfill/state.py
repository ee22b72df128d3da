"""What a backfill keeps between runs, and when it is of no use any more."""

import shutil
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from services.common.errors import BrokerUnavailableError
from services.common.settings import BrokerSettings

#: The embedded broker forgets everything when it ends, so its state never fits the next one.
EMBEDDED = "embedded"
_NAME = "broker"


def forget_other_brokers(state: Path, broker: str) -> None:
    """Remove the state in the folder `state` unless it belongs to `broker`, but never what was downloaded."""
    name = state / _NAME
    if broker != EMBEDDED and name.exists() and name.read_text() == broker:
        return
    for path in state.glob("*") if state.exists() else ():
        if path.is_dir() and path.name != "trades":
            shutil.rmtree(path)
    for path in (state / "trades").glob("*.json"):
        path.unlink()
    state.mkdir(parents=True, exist_ok=True)
    name.write_text(broker)


def broker_name(settings: BrokerSettings) -> str:
    """What tells one broker from another, also at the same address. Raises `BrokerUnavailableError`."""
    try:
        metadata = AdminClient(settings.client_config()).list_topics(timeout=settings.connect_timeout_s)
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"no broker answers at {settings.brokers} ({error.args[0].str()}); unset KAFKA_BROKERS to use "
            "the embedded one"
        ) from error
    return f"{settings.brokers} {metadata.cluster_id}"
