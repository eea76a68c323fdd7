"""Expressions of Prometheus that dashboards, rules and the report have in common: each is written
here once.

Pure text. A counter can be looked at in several ways (per second, how much it grew), so what is
made of counters takes that way as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Way = Callable[[str], str]
"""From a counter (with what it is chosen by) to an expression of how it grows."""

WINDOW = "$__rate_interval"
"""Grafana's own word for a window that fits what it draws."""

MISSED = "5m"
"""How long a target may be silent until it is not known how much its counters grew meanwhile."""

TOTAL = "litellm_proxy_total_requests_metric_total"
FAILED = "litellm_proxy_failed_requests_metric_total"
TAKEN = "litellm_deployment_successful_fallbacks_total"
NOT_TAKEN = "litellm_deployment_failed_fallbacks_total"
ANSWERS = "litellm_deployment_success_responses_total"
READ = "litellm_input_tokens_metric_total"
WRITTEN = "litellm_output_tokens_metric_total"
TTFT = "litellm_llm_api_time_to_first_token_metric"
REFUSED = "modelyard_gateway_refusals_total"
"""What the guard refused: of a client, or without a known one."""
DOOR = 'haproxy_frontend_http_responses_total{proxy="public"}'
DOOR_ERRORS = 'haproxy_frontend_http_responses_total{proxy="public",code="5xx"}'
POOLED = 'proxy=~"pool[.].+"'
POOL_ANSWERS = f"haproxy_server_http_responses_total{{{POOLED}}}"
POOL_QUEUE = f"haproxy_backend_current_queue{{{POOLED}}}"
POOL_STATUS = "haproxy_server_status"
GATEWAY_ERRORS = 'haproxy_server_http_responses_total{proxy="gateway",code="5xx"}'

RELEASE = "(topk by (instance, service) (1, timestamp(modelyard_release_info)) ^ 0)"
"""1, labelled with the live release of each service. After a restart of Prometheus the former one
stays for minutes."""


def per_second(window: str = WINDOW) -> Way:
    """How much a counter grows in a second."""
    return lambda counter: f"rate({counter}[{window}])"


def grown(window: str) -> Way:
    """How much a counter grew in a window, exactly where that is known, so that windows side by
    side add up.

    What was missed for some minutes counts in the window in which it is seen. Of a counter that
    began anew in the window it is what `increase` estimates. One that was not there when the window
    began, although its target answered, began at zero: `increase` alone would leave out what it
    first showed.
    """

    def way(counter: str) -> str:
        now, before = (
            f"last_over_time({counter}[{MISSED}]{offset})" for offset in ("", f" offset {window}")
        )
        watched = f"on (job, instance) (max_over_time(up[{MISSED}] offset {window}) == 1)"
        known = f"(({now} - {before}) >= 0 or {now} unless {before} and {watched})"
        return f"({known} and resets({counter}[{window}]) == 0 or increase({counter}[{window}]))"

    return way


def summed(way: Way, counter: str, *by: str) -> str:
    """All series of a counter together, or by labels."""
    return f"sum{_by(by)} ({way(counter)})"


def quantile(share: float, histogram: str, *by: str) -> str:
    """Return the expression for the value that this share of the observations of a histogram does
    not exceed.
    """
    buckets = per_second()(f"{histogram}_bucket")
    return f"histogram_quantile({share}, sum{_by([*by, 'le'])} ({buckets}))"


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def asked(way: Way) -> str:
    """Return the expression for what was asked for by a name. The gateway counts a request that a
    fallback answered under the fallback's name.
    """
    stepped_in = f"sum by (fallback_model) ({way(TAKEN)})"
    return (
        f"sum by (requested_model) ({way(TOTAL)} or {way(TAKEN)}"
        f' or - label_replace({stepped_in}, "requested_model", "$1", "fallback_model", "(.+)"))'
    )


def unanswered(way: Way) -> str:
    """Return the expression for requests that were not answered: a provider failed (its name before
    a dot) or all are cooled down (RouterRateLimitError).
    """
    kinds = 'exception_class=~".+[.].+|RouterRateLimitError", exception_status!~"400|404|413|422"'
    return f"sum by (requested_model) ({way(f'{FAILED}{{{kinds}}}')})"


def by_provider(way: Way) -> str:
    """Answers by who gave them. The name of a deployment is PROVIDER/HOST/MODEL."""
    return (
        f'sum by (provider) (label_replace({way(ANSWERS)}, "provider", "$1", "model_id",'
        ' "([^/]*)/.*"))'
    )


def refused(way: Way) -> str:
    """Return the expression for requests without a ready gateway, so that the front end itself
    answered 503. They belong to no name.
    """
    return f"{summed(way, DOOR_ERRORS)} - {summed(way, GATEWAY_ERRORS)}"
