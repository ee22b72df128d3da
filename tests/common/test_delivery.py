"""The producer of sources and engines: what it cannot deliver ends the process and says what to do."""

import pytest
from confluent_kafka import KafkaError

from services.common.broker import EmbeddedBroker
from services.common.delivery import Delivery, undelivered
from services.common.errors import BrokerUnavailableError, MessageTooLargeError
from services.common.health import Health
from services.common.metrics import Metrics
from services.common.runner import Context
from services.common.settings import MIN_MESSAGE_BYTES
from tests.common.support import KEY, Bus


def test_a_message_that_is_too_large_is_an_error_that_names_the_setting(broker: EmbeddedBroker) -> None:
    bus = Bus(broker.address, "_big", KAFKA_MAX_MESSAGE_BYTES=str(MIN_MESSAGE_BYTES))
    delivery = Delivery(Context("test", bus.settings, Health(60), Metrics()))
    topic = bus.settings.topic("trades")
    with pytest.raises(MessageTooLargeError, match="set KAFKA_MAX_MESSAGE_BYTES"):
        delivery.send(topic, KEY, b"x" * 2 * MIN_MESSAGE_BYTES, headers=(), timestamp_ms=0)
    delivery.send(topic, KEY, b"[]", headers=(), timestamp_ms=0)
    delivery.flush(20)
    assert [record.value for record in bus.read("trades")] == [b"[]"]


def test_any_other_failure_keeps_the_words_of_the_broker() -> None:
    error = undelivered(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert isinstance(error, BrokerUnavailableError)
    assert str(error) == "a message was not delivered: Broker: Topic authorization failed"
