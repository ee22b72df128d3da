"""Settings of the Hopsworks store (``FEATURES_HOPSWORKS_…``), for ``FEATURES_STORE=hopsworks`` only."""

from pathlib import Path

from pydantic import Field, SecretStr

from services.common.settings import ServiceSettings


class HopsworksSettings(ServiceSettings):
    """Where Hopsworks is, as whom we come, and how long it may take."""

    hopsworks_host: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9.-]{1,253}$",
        description="Host of the Hopsworks cluster, without https://; FEATURES_STORE=hopsworks needs it",
    )
    hopsworks_port: int = Field(443, ge=1, le=65535, description="Its HTTPS port")
    hopsworks_project: str | None = Field(
        None, min_length=1, description="Its project; FEATURES_STORE=hopsworks needs it"
    )
    hopsworks_api_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="API key with the scopes featurestore, project, job and kafka; "
        "FEATURES_STORE=hopsworks needs it",
    )
    hopsworks_ca_file: Path | None = Field(
        None, description="File with the CA of its certificate; the usual authorities if unset"
    )
    # The main loop waits that long, and is taken for dead after 30 s.
    hopsworks_timeout_s: float = Field(
        10.0,
        gt=0,
        le=25,
        description="How long one answer of Hopsworks, or a delivery to its Kafka, may take",
    )
    hopsworks_materialize_cron: str = Field(
        "0 7 * ? * * *",
        min_length=1,
        description="When Hopsworks takes rows into the offline store (Quartz cron, UTC, seconds 0); "
        "off leaves its schedules alone",
    )
    hopsworks_keep_days: int = Field(
        30, ge=3, le=36_500, description="How long the working copy keeps rows that Hopsworks has"
    )

    def missing_for_hopsworks(self) -> list[str]:
        """Names of the settings that Hopsworks needs and that are unset."""
        needed = ("hopsworks_host", "hopsworks_project", "hopsworks_api_key")
        return [f"FEATURES_{name.upper()}" for name in needed if getattr(self, name) is None]
