"""Dashboards of what people get: overview, routing, tokens and cost."""

from __future__ import annotations

from modelyard.dashboards.expressions import (
    ANSWERS,
    DOOR,
    DOOR_ERRORS,
    FAILED,
    NOT_TAKEN,
    POOL_ANSWERS,
    POOL_QUEUE,
    POOL_STATUS,
    POOLED,
    READ,
    REFUSED,
    TAKEN,
    TOTAL,
    TTFT,
    WRITTEN,
    by_provider,
    per_second,
    quantile,
)
from modelyard.dashboards.parts import above, below, board, in_range, number, rate, series, states

UP = {0: ("down", "red"), 1: ("up", "green")}
# After a restart of Prometheus, which a change of targets brings, one that is gone would be down
# for five minutes.
TARGET, PROBE = "last_over_time(up[1m])", "last_over_time(probe_success[1m])"
# Without a deployment's name: none was called, because all are cooled down or the request was
# invalid.
FAILURES = 'litellm_deployment_failure_responses_total{model_id!=""}'
COOLED = "litellm_deployment_cooled_down_total"
ASKED = "modelyard:requests:rate5m"
ANSWERED = f"1 - (modelyard:requests_unanswered:rate5m or 0 * {ASKED}) / ({ASKED} > 0)"

OVERVIEW = board(
    "overview",
    "Overview",
    "Answers, the providers behind them, and current faults.",
    {
        "Now": [
            number(
                "Targets down",
                "none",
                f"sum({TARGET} == bool 0) + (sum({PROBE} == bool 0) or vector(0))",
                steps=above(1),
            ),
            number(
                "Alerts",
                "none",
                'count(ALERTS{alertstate="firing"}) or vector(0)',
                steps=above(1, "orange"),
            ),
            number("Answers per second", "reqps", rate(DOOR)),
            number(
                "Answers without error",
                "percentunit",
                f"1 - {rate(DOOR_ERRORS)} / ({rate(DOOR)} > 0)",
                steps=below(0.98),
                description="Share of all answers of the front end that are not 5xx.",
            ),
            number("Requests running", "none", "sum(litellm_in_flight_requests)"),
            number("First token, p95", "s", quantile(0.95, TTFT), steps=above(5, "orange")),
        ],
        "Answers": [
            series(
                "Answers of the front end", "reqps", {"{{code}}": rate(DOOR, "code")}, stack=True
            ),
            series(
                "Availability of each name",
                "percentunit",
                {"{{requested_model}}": ANSWERED},
                steps=below(0.98),
                description=(
                    "Share of the requests for a name that were answered; invalid requests do not"
                    " count."
                ),
            ),
            series(
                "Time to first token, p95",
                "s",
                {"{{requested_model}}": quantile(0.95, TTFT, "requested_model")},
            ),
        ],
        "Services": [
            states(
                "Targets",
                {"{{instance}} {{service}}": TARGET, "{{instance}} {{service}} (probe)": PROBE},
                UP,
            ),
            states(
                "Alerts",
                {
                    "{{alertname}} {{instance}} {{service}}{{model_id}}": (
                        'ALERTS{alertstate="firing"}'
                    )
                },
                {1: ("firing", "red")},
            ),
        ],
    },
)

ROUTING = board(
    "routing",
    "Routing",
    "Providers that answer, fallbacks, and cooled-down deployments.",
    {
        "Answers": [
            series(
                "Answers by provider",
                "reqps",
                {"{{provider}}": by_provider(per_second())},
                stack=True,
            ),
            series(
                "Attempts per request",
                "none",
                {
                    "attempts": (
                        f"({rate(ANSWERS)}"
                        f" + ({rate(FAILURES)} or vector(0))"
                        f" + ({rate(NOT_TAKEN)} or vector(0)))"
                        f" / ({rate(TOTAL)} > 0)"
                    )
                },
                steps=above(1.2, "orange"),
                description="1: the first attempt answered. Cooled-down deployments are not tried.",
            ),
            series(
                "Requests that a fallback answered",
                "percentunit",
                {"share": f"({rate(TAKEN)} or vector(0)) / ({rate(TOTAL)} > 0)"},
                steps=above(0.05),
            ),
        ],
        "Fallbacks": [
            series(
                "Fallbacks taken",
                "reqps",
                {
                    "{{requested_model}} → {{fallback_model}}": rate(
                        TAKEN, "requested_model", "fallback_model"
                    )
                },
            ),
            series(
                "Fallbacks that failed",
                "reqps",
                {
                    "{{requested_model}} → {{fallback_model}}": rate(
                        NOT_TAKEN, "requested_model", "fallback_model"
                    )
                },
                description="A step of a chain that failed or was cooled down.",
            ),
            series(
                "Requests that failed",
                "reqps",
                {
                    "{{requested_model}} {{exception_class}}": rate(
                        FAILED, "requested_model", "exception_class"
                    )
                },
                description="RouterRateLimitError: the whole chain is cooled down.",
            ),
        ],
        "Deployments": [
            states(
                "State of deployments",
                {"{{model_id}}": "max by (model_id) (litellm_deployment_state)"},
                {
                    0: ("answers", "green"),
                    1: ("failed last time", "orange"),
                    2: ("cooled down", "red"),
                },
                description=(
                    "The worst state that a worker saw at its last request; it stays until the next"
                    " one."
                ),
            ),
            series(
                "Cool-downs",
                "none",
                {"{{model_id}}": f"sum by (model_id) (increase({COOLED}[$__rate_interval]))"},
            ),
        ],
        "Pools of engines": [
            states(
                "Hosts that are up",
                {
                    "{{proxy}} {{server}}": (
                        f'min by (proxy, server) ({POOL_STATUS}{{{POOLED},state="UP"}})'
                    )
                },
                {0: ("down or drained", "red"), 1: ("up", "green")},
                description="As the gateway sees it that sees least.",
            ),
            series(
                "Requests that wait for a host",
                "none",
                {"{{proxy}}": f"sum by (proxy) ({POOL_QUEUE})"},
                steps=above(1, "orange"),
            ),
            series(
                "Requests by host",
                "reqps",
                {"{{proxy}} {{server}}": rate(POOL_ANSWERS, "proxy", "server")},
            ),
        ],
        "Time to first token": [
            series(
                f"p{int(share * 100)}",
                "s",
                {"{{requested_model}}": quantile(share, TTFT, "requested_model")},
            )
            for share in (0.5, 0.95, 0.99)
        ],
        "The gateway itself": [
            series(
                "Overhead",
                "s",
                {
                    f"p{int(q * 100)}": quantile(q, "litellm_overhead_latency_metric")
                    for q in (0.5, 0.95, 0.99)
                },
                steps=above(0.25),
                description="Latency that the gateway adds.",
            ),
            series(
                "Wait before processing",
                "s",
                {
                    f"p{int(q * 100)}": quantile(q, "litellm_request_queue_time_seconds")
                    for q in (0.5, 0.95, 0.99)
                },
                steps=above(1),
            ),
            series(
                "Whole answer, p95",
                "s",
                {
                    "{{requested_model}}": quantile(
                        0.95, "litellm_request_total_latency_metric", "requested_model"
                    )
                },
            ),
        ],
    },
)

TOKENS = board(
    "tokens",
    "Tokens and cost",
    "Tokens read and written, by client, and their cost at the catalogue's prices.",
    {
        "In the period shown": [
            number("Tokens read", "short", in_range(READ)),
            number("Tokens written", "short", in_range(WRITTEN)),
            number("Requests", "short", in_range("litellm_requests_metric_total")),
            number("Cost", "currencyUSD", in_range("litellm_spend_metric_total")),
        ],
        "By name": [
            series(
                "Tokens read",
                "short",
                {"{{requested_model}}": rate(READ, "requested_model")},
                stack=True,
                description="Per second.",
            ),
            series(
                "Tokens written",
                "short",
                {"{{requested_model}}": rate(WRITTEN, "requested_model")},
                stack=True,
                description="Per second.",
            ),
            series(
                "Cost per hour",
                "currencyUSD",
                {
                    "{{requested_model}}": (
                        f"3600 * {rate('litellm_spend_metric_total', 'requested_model')}"
                    )
                },
                stack=True,
            ),
        ],
        "By key": [
            series(
                "Tokens",
                "short",
                {"{{api_key_alias}}": rate("litellm_total_tokens_metric_total", "api_key_alias")},
                stack=True,
                description="Per second.",
            ),
            series(
                "Cost per hour",
                "currencyUSD",
                {
                    "{{api_key_alias}}": (
                        f"3600 * {rate('litellm_spend_metric_total', 'api_key_alias')}"
                    )
                },
                stack=True,
            ),
            series(
                "Refused",
                "reqps",
                {
                    "{{api_key_alias}} {{status_code}}": rate(
                        REFUSED, "api_key_alias", "status_code"
                    )
                },
                stack=True,
                description=(
                    "429: more than the client's limit. Without a name: no key, a wrong one, or the"
                    " master's."
                ),
            ),
        ],
        "Speed": [
            series(
                "Time per token of an answer, p95",
                "s",
                {
                    "{{model_group}}": quantile(
                        0.95, "litellm_deployment_latency_per_output_token", "model_group"
                    )
                },
            ),
            series(
                "Tokens per request",
                "short",
                {
                    "{{requested_model}}": (
                        f"{rate('litellm_total_tokens_metric_total', 'requested_model')}"
                        f" / ({rate('litellm_requests_metric_total', 'requested_model')} > 0)"
                    )
                },
            ),
        ],
    },
)
