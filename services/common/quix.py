"""What we use of Quix Streams; everything here imports it from this module, so that the rest stays out.

Left out are the schema registry's client (with two HTTP clients, tokens and keys), configuration lookups
and tables on a terminal.
"""

from services.common.imports import left_out

with left_out("confluent_kafka.schema_registry", "httpx", "jsonpath_ng", "jsonschema", "rich"):
    from quixstreams import Application, message_context
    from quixstreams.dataframe import StreamingDataFrame
    from quixstreams.kafka import ConnectionConfig
    from quixstreams.kafka.exceptions import KafkaBrokerUnavailableError, KafkaProducerDeliveryError
    from quixstreams.models import SerializationContext, Serializer, Topic, TopicConfig
    from quixstreams.sinks.base import BaseSink

__all__ = [
    "Application",
    "BaseSink",
    "ConnectionConfig",
    "KafkaBrokerUnavailableError",
    "KafkaProducerDeliveryError",
    "SerializationContext",
    "Serializer",
    "StreamingDataFrame",
    "Topic",
    "TopicConfig",
    "message_context",
]
