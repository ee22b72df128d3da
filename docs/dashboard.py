"""The example Grafana dashboard: `make docs` writes `docs/grafana-dashboard.json` from this table."""

import json
from typing import Any, NamedTuple


class Panel(NamedTuple):
    """One graph: PromQL by legend, and Grafana's name of the unit."""

    title: str
    unit: str
    queries: dict[str, str]


def _quantiles(metric: str) -> dict[str, str]:
    return {
        name: f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket[5m])))"
        for name, q in (("p50", 0.5), ("p99", 0.99))
    }


PANELS = (
    Panel("Services that answer", "short", {"{{service}}": "sum by (service) (up)"}),
    Panel("Rows in", "rowsps", {"{{service}}": "sum by (service) (rate(rows_in_total[1m]))"}),
    Panel("Rows out", "rowsps", {"{{service}}": "sum by (service) (rate(rows_out_total[1m]))"}),
    Panel(
        "Messages waiting",
        "short",
        {"{{service}} {{topic}}": "sum by (service, topic) (kafka_consumergroup_lag)"},
    ),
    Panel(
        "Dead letters in an hour",
        "short",
        {"{{service}} {{reason}}": "sum by (service, reason) (increase(dead_letters_total[1h]))"},
    ),
    Panel(
        "Age of the newest event",
        "s",
        {"{{service}} {{exchange}}": "time() - max by (service, exchange) (last_event_timestamp_seconds)"},
    ),
    Panel("Trade frame in to feature row readable", "s", _quantiles("frame_to_row_seconds")),
    Panel("News observed to signal row readable", "s", _quantiles("news_to_row_seconds")),
    Panel(
        "Reconnects, gaps, late trades in an hour",
        "short",
        {
            "reconnects": "sum(increase(reconnects_total[1h]))",
            "trades missing": "sum(increase(trades_missing_total[1h]))",
            "late trades": "sum(increase(late_trades_total[1h]))",
            "candle gaps": "sum(increase(candle_gaps_total[1h]))",
        },
    ),
    Panel(
        "News looks by result",
        "short",
        {"{{source}} {{result}}": "sum by (source, result) (increase(fetches_total[1h]))"},
    ),
    Panel("Store writes", "s", _quantiles("store_write_seconds")),
    Panel(
        "Age of the last store write",
        "s",
        {"{{service}}": "time() - max by (service) (last_write_success_timestamp_seconds)"},
    ),
    Panel("Memory", "bytes", {"{{service}} {{instance}}": "process_resident_memory_bytes"}),
    Panel("CPU", "percentunit", {"{{service}} {{instance}}": "rate(process_cpu_seconds_total[1m])"}),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it; it asks for the Prometheus data source."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [
        {
            "id": place + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (place % 2), "y": 8 * (place // 2)},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + number), "datasource": source, "expr": query, "legendFormat": legend}
                for number, (legend, query) in enumerate(panel.queries.items())
            ],
        }
        for place, panel in enumerate(PANELS)
    ]
    return {
        "title": "Crypto Price Predictor",
        "uid": "crypto-price-predictor",
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def dashboard_text() -> str:
    """Text of `docs/grafana-dashboard.json`."""
    return json.dumps(dashboard(), indent=1) + "\n"
