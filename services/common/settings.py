"""Settings that all services share, and the rule that an unknown variable is an error."""

import difflib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.common.errors import SettingsError
from services.common.messages import MAX_TIME_MS, PAIR_PATTERN
from services.common.timeframes import TIMEFRAMES

#: Variables that start with a service's prefix but belong to somebody else.
_FOREIGN = {"KAFKA_HOME", "KAFKA_OPTS", "KAFKA_HEAP_OPTS"}
#: Where Docker and Kubernetes mount secrets, a file each.
SECRETS_DIR = Path("/run/secrets")
#: A story with the longest text takes 95 kB, the state of a pair's candles at the longest horizon 280 kB,
#: which must be less than `topics.letter_bytes`.
MIN_MESSAGE_BYTES = 200_000


class EnvSettings(BaseSettings):
    """Settings read from ``PREFIX_NAME`` variables and from a `.env` file, refusing unknown ones."""

    # pydantic looks at the environment too, where an empty variable is an unset one to us.
    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )
    #: Longer prefixes that begin like this one's and belong to other settings.
    other_prefixes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        env_file: Path | None = None,
        secrets_dir: Path = SECRETS_DIR,
    ) -> Self:
        """Read the settings. Raises `SettingsError` with one line for each thing that is wrong.

        The environment goes before `env_file`, and both before the secrets: files in `secrets_dir`, each with
        the name of a variable, that hold its value.
        """
        environ = os.environ if environ is None else environ
        values = {**_read_env_file(env_file), **environ} if env_file else dict(environ)
        for secret, held in _read_secrets(secrets_dir).items():
            # Compose passes on what is unset as empty; that must not hide a secret.
            values[secret] = values.get(secret) or held
        prefix = cls.model_config["env_prefix"]
        known = {f"{prefix}{name}".upper(): name for name in cls.model_fields}
        given: dict[str, Any] = {}
        problems: list[str] = []
        for variable, value in values.items():
            upper = variable.upper()
            if not upper.startswith(prefix.upper()) or variable in _FOREIGN:
                continue
            if upper.startswith(cls.other_prefixes):
                continue
            name = known.get(variable.upper())
            if name is None:
                close = difflib.get_close_matches(variable.upper(), known, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"
                problems.append(f"{variable}: unknown setting{hint}")
            elif value != "":
                given[name] = value
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            for item in error.errors(include_input=False, include_url=False, include_context=False):
                text = item["msg"].removeprefix("Value error, ")
                # What is wrong with several settings together names them itself.
                problems.append(f"{prefix}{item['loc'][0]}".upper() + f": {text}" if item["loc"] else text)
        if problems:
            raise SettingsError("\n".join(["settings are wrong:", *(f"  {p}" for p in problems)]))
        return settings


def _read_secrets(folder: Path) -> dict[str, str]:
    try:
        files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
        return {path.name: path.read_text(encoding="utf-8").strip() for path in files}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the secrets in {folder}: {error}") from error


def _read_env_file(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise SettingsError(f"settings file {path} does not exist")
    values: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, separator, value = text.removeprefix("export ").partition("=")
        if not separator:
            raise SettingsError(f"{path}:{number}: expected NAME=value")
        values[name.strip()] = re.sub(r"^(['\"])(.*)\1$", r"\2", value.strip())
    return values


def _read_time(value: object) -> object:
    if not isinstance(value, str) or re.fullmatch(r"\d+", value.strip()):
        return value
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise ValueError("write an ISO time like 2026-07-07T23:00:00Z, or epoch ms") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _in_ms(value: int) -> int:
    if not 100_000_000_000 <= value <= MAX_TIME_MS:
        raise ValueError("epoch milliseconds have 13 digits; this looks like another unit")
    return value


#: Epoch ms, given so or as an ISO time (UTC unless it carries a zone).
TimeSetting = Annotated[int, BeforeValidator(_read_time), AfterValidator(_in_ms)]


def split_list(value: object) -> object:
    """``a, b`` as ``("a", "b")``; anything that is no text is left as it is."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def check_pairs(pairs: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse anything that is not written ``BTC/USD``, and repetitions."""
    for pair in pairs:
        if not re.match(PAIR_PATTERN, pair):
            raise ValueError(f"{pair!r} is no pair; write it like BTC/USD")
        if pair.startswith("XBT/"):
            raise ValueError(f"{pair!r}: bitcoin is written BTC here, also for Kraken")
    if not pairs:
        raise ValueError("name at least one pair, like BTC/USD")
    if len(set(pairs)) != len(pairs):
        raise ValueError("a pair is named twice")
    return pairs


def check_timeframes(timeframes: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse unknown timeframes; the rest comes back shortest first."""
    unknown = [name for name in timeframes if name not in TIMEFRAMES]
    if unknown:
        raise ValueError(f"unknown timeframe {', '.join(unknown)}; known: {', '.join(TIMEFRAMES)}")
    if not timeframes:
        raise ValueError(f"name at least one timeframe of {', '.join(TIMEFRAMES)}")
    return tuple(name for name in TIMEFRAMES if name in timeframes)


#: A comma-separated list in an environment variable.
Names = Annotated[tuple[str, ...], NoDecode]


class BrokerSettings(EnvSettings):
    """How to reach the message bus (``KAFKA_…``)."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_")

    brokers: str = Field("localhost:19092", description="Bootstrap servers, host:port, comma-separated")
    embedded: bool = Field(False, description="The bus is the embedded broker, which needs other time-outs")
    partitions: int = Field(12, ge=1, le=1000, description="Partitions of every topic")
    replication_factor: int = Field(1, ge=1, le=9, description="Copies of every partition")
    topic_suffix: str = Field(
        "",
        pattern=r"^[a-z0-9_.-]{0,40}$",
        description="Added to every topic name, e.g. _historical",
    )
    history_run: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]{1,60}$",
        description="Historical: name of this run, one for all its services; at its end they stop. "
        "Unset: at that of any run",
    )
    retention_hours: float | None = Field(
        None, gt=0, description="Overrides how long every topic keeps its messages"
    )
    max_message_bytes: int = Field(4_000_000, le=100_000_000, description="Largest message, at both ends")
    connect_timeout_s: float = Field(15.0, gt=0, le=300, description="How long to wait for a broker")
    fetch_wait_ms: int | None = Field(
        None,
        ge=1,
        le=5_000,
        description="How long the broker may hold an idle fetch; 500, and 20 on the embedded broker",
    )
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="How the broker is spoken to"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How we log in to the broker"
    )
    sasl_username: str | None = Field(None, description="User name for SASL")
    sasl_password: SecretStr | None = Field(None, description="Password for SASL")
    ssl_ca_location: str | None = Field(None, description="File with the broker's CA certificate")

    @field_validator("max_message_bytes")
    @classmethod
    def _holds_a_row(cls, value: int) -> int:
        if value < MIN_MESSAGE_BYTES:
            raise ValueError(
                f"must be {MIN_MESSAGE_BYTES} or more, so that a message holds any row, like a story's text"
            )
        return value

    def topic(self, name: str) -> str:
        """Full name of the topic `name`."""
        return name + self.topic_suffix

    def client_config(self) -> dict[str, Any]:
        """Configuration for any librdkafka client."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.brokers,
            "security.protocol": self.security_protocol,
        }
        if self.sasl_mechanism:
            config["sasl.mechanism"] = self.sasl_mechanism
            config["sasl.username"] = self.sasl_username
            if self.sasl_password is not None:
                config["sasl.password"] = self.sasl_password.get_secret_value()
        if self.ssl_ca_location:
            config["ssl.ca.location"] = self.ssl_ca_location
        return config


class ServiceSettings(EnvSettings):
    """What every service can be told, under the service's own prefix."""

    http_host: str = Field("127.0.0.1", description="Address that the HTTP face listens on")
    http_port: int = Field(0, ge=0, le=65535, description="Its port; 0 takes a free one")
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line that is shown"
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for machines")
    state_dir: Path = Field(Path("state"), description="Folder for state that survives a restart")
    consumer_group: str | None = Field(
        None, description="Kafka consumer group; the service's name and topic suffix if unset"
    )
    commit_interval_s: float = Field(
        1.0,
        gt=0,
        le=60,
        description="How often progress is committed; what a restart repeats at most",
    )
    stale_after_s: float = Field(
        120.0, gt=0, description="Without input for this long the service reports not ready"
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value
