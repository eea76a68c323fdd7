"""`llm_monitoring`: Prometheus, Alertmanager, Grafana and exporters."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from modelyard.kinds import (
    EmailAddress,
    HttpUrl,
    MailServer,
    Port,
    SecretName,
    Strict,
    misfit,
    unit,
)


class PrometheusSettings(Strict):
    """Prometheus, which keeps the metrics."""

    port: Port = Field(9090, examples=[9090])
    """Its port, on loopback of the host of `llm_monitoring`."""
    scrape_interval_s: Annotated[int, Field(ge=10, le=30)] = Field(
        15, examples=[15], json_schema_extra=unit("seconds")
    )
    """How often targets are scraped. At least as long as a scrape may take (10 s); alerts need two
    minutes of data."""
    retention_days: Annotated[int, Field(gt=0, le=3660)] = Field(
        30, examples=[90], json_schema_extra=unit("days")
    )
    """Older data is deleted."""
    retention_gib: Annotated[int, Field(gt=0, le=2**16)] = Field(
        10, examples=[50], json_schema_extra=unit("GiB")
    )
    """The oldest data is deleted earlier if there is more than this."""


class Webhook(Strict):
    """The webhook that receives alerts."""

    url: HttpUrl = Field(examples=["https://alerts.example.org/modelyard"])
    """The address. It can be read in the configuration on the host, so it must not be a key
    itself."""
    token_env: SecretName | None = Field(None, examples=["ALERT_TOKEN"])
    """Name of the secret that is sent as bearer token."""


class Email(Strict):
    """The recipient of alerts by e-mail."""

    to: EmailAddress = Field(examples=["ops@example.org"])
    """Recipient."""
    sender: EmailAddress = Field(examples=["modelyard@example.org"])
    """The sender's address (From)."""
    smarthost: MailServer = Field(examples=["mail.example.org:587"])
    """The mail server. TLS is required."""
    username: str | None = Field(None, examples=["modelyard"])
    """The user there, if it needs one."""
    password_env: SecretName | None = Field(None, examples=["SMTP_PASSWORD"])
    """Name of the secret that holds the user's password."""

    @model_validator(mode="after")
    def _login(self) -> Self:
        if (self.username is None) != (self.password_env is None):
            raise misfit(
                "set both username and password_env, or neither", "username", "password_env"
            )
        return self


class AlertmanagerSettings(Strict):
    """Alertmanager, which routes alerts. Without a receiver it only shows them."""

    port: Port = Field(9093, examples=[9093])
    """Its port, on loopback of the host of `llm_monitoring`."""
    webhook: Webhook | None = Field(
        None, examples=[{"url": "https://alerts.example.org/modelyard"}]
    )
    """Alerts are posted there as JSON."""
    email: Email | None = Field(
        None,
        examples=[
            {
                "to": "ops@example.org",
                "sender": "modelyard@example.org",
                "smarthost": "mail.example.org:587",
            }
        ],
    )
    """Alerts are mailed."""


class GrafanaSettings(Strict):
    """Grafana, which shows dashboards. It runs if `llm_versions` names its archive."""

    port: Port = Field(3000, examples=[3000])
    """Its port, on loopback of the host of `llm_monitoring`."""


class ExporterPorts(Strict):
    """Ports of the exporters. On loopback, or `llm_address` if Prometheus is on another host."""

    gateway: Port = Field(8405, examples=[8405])
    """The front end's metrics and, under `/litellm`, those of the live slot."""
    node: Port = Field(9100, examples=[9100])
    """CPU, memory, disks and network of every host."""
    host: Port = Field(9117, examples=[9117])
    """Releases, units, GPUs and measured first tokens of every host."""
    redis: Port = Field(9121, examples=[9121])
    """Redis."""
    blackbox: Port = Field(9115, examples=[9115])
    """Probes services without metrics."""


def _probe_interval(seconds: int) -> int:
    if 0 < seconds < 30:
        raise ValueError("an engine is asked every 30 seconds at most; 0 is never")
    return seconds


class Monitoring(Strict):
    """Prometheus, Alertmanager and Grafana on the host of `llm_monitoring`, and exporters on
    all.
    """

    prometheus: PrometheusSettings = Field(PrometheusSettings(), examples=[{"retention_days": 90}])
    """Keeps the metrics."""
    alertmanager: AlertmanagerSettings = Field(AlertmanagerSettings(), examples=[{"port": 9094}])
    """Routes alerts."""
    grafana: GrafanaSettings = Field(GrafanaSettings(), examples=[{"port": 3000}])
    """Shows dashboards."""
    exporters: ExporterPorts = Field(ExporterPorts(), examples=[{"node": 9101}])
    """Exporter ports."""
    probe_interval_s: (
        Annotated[int, Field(ge=0, le=86400), AfterValidator(_probe_interval)] | None
    ) = Field(300, examples=[600], json_schema_extra=unit("seconds"))
    """How often every engine is queried for a few tokens, to measure the time to the first. At
    least 30; `0` or `null`: never."""
