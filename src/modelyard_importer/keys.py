"""Keys of the old files that have no counterpart, and why. What stands here needs no code of its own."""

from __future__ import annotations

from modelyard_importer.report import Outcome

Known = dict[str, tuple[Outcome, str]]

NO_MEANING, UNSUPPORTED = Outcome.NO_MEANING, Outcome.UNSUPPORTED

NOTE = (NO_MEANING, "a note for people")
COMMENT = (NO_MEANING, "kept as a comment")
BUDGET = (UNSUPPORTED, "there are no budgets; rpm and tpm limit a model, and the provider's own console limits money")
CONDITION = (UNSUPPORTED, "conditions were never evaluated; give the other route a name or a capability of its own")
BY_HEALTH = (UNSUPPORTED, "the order of a chain is fixed; a model that fails is left alone for llm_gateway.cooldown_s")
RETRIES = (NO_MEANING, "never read; the next step of the chain is the retry")

TOP_PROVIDERS: Known = {
    "metadata": NOTE,
    "health_checks": (NO_MEANING, "never read; playbooks/smoke.yml checks every service of the plan"),
}

PROVIDER: Known = {
    "description": COMMENT,
    "health_endpoint": (NO_MEANING, "the gateway learns from requests who is down"),
    "features": NOTE,
    "configuration": (
        NO_MEANING,
        "never read; an engine elsewhere has its own settings, one of ours (group) takes them as options of a model",
    ),
    "api_format": (NO_MEANING, "type says it"),
    "gpu_memory_utilization": (NO_MEANING, "never read; a setting of the engine, which runs elsewhere"),
    "location": NOTE,
    "service_file": NOTE,
    "docs": NOTE,
    "hardware_requirements": NOTE,
    "notes": NOTE,
    "rate_limits": (UNSUPPORTED, "limits belong to a model: rpm and tpm"),
    "budget": BUDGET,
}

MODEL: Known = {
    "description": COMMENT,
    "size": NOTE,
    "quantization": NOTE,
    "specialty": NOTE,
    "use_case": NOTE,
    "pulled_at": NOTE,
    "model_size_gb": NOTE,
    "kv_cache_available_gb": NOTE,
    "options": (
        UNSUPPORTED,
        "the gateway sends no options of Ollama; put them into a Modelfile, or let the client send its parameters",
    ),
}

EXACT_MATCH: Known = {
    "description": NOTE,
    "priority": (NO_MEANING, "never read; the order is that of the chains"),
    "fallback": (UNSUPPORTED, "never read; who steps in stands in llm_routing.fallbacks"),
    "budget": BUDGET,
}

CAPABILITY: Known = {
    "description": COMMENT,
    "provider": (NO_MEANING, "never read; the models decide"),
    "providers": (NO_MEANING, "never read; the models decide"),
    "routing_strategy": (UNSUPPORTED, "never had an effect; the models are tried in the order they are written"),
    "min_model_size": CONDITION,
    "min_context": CONDITION,
    "complexity_thresholds": CONDITION,
    "context_thresholds": CONDITION,
    "notes": NOTE,
    "fallback": (UNSUPPORTED, "never read; whoever steps in for its models steps in for it"),
}

CHAIN: Known = {
    "description": COMMENT,
    "tier": NOTE,
    "notes": NOTE,
    "retry_attempts": RETRIES,
    "retry_delay_ms": RETRIES,
}

STEP: Known = {
    "description": NOTE,
    "notes": NOTE,
    "tier": NOTE,
    "provider": (NO_MEANING, "the model's provider is known"),
    "condition": CONDITION,
    "retry_attempts": RETRIES,
    "retry_delay_ms": RETRIES,
}

LOAD_BALANCING: Known = {
    "description": NOTE,
    "strategy": (
        UNSUPPORTED,
        "never had an effect; the gateway chooses by weight, any other way ignores weights or starves a member",
    ),
    "parameters": (UNSUPPORTED, "never had an effect; they belong to a strategy"),
}

MEMBER: Known = {
    "condition": CONDITION,
    "preferred_model": (UNSUPPORTED, "never had an effect; give this model a name of its own, or a chain"),
}

ROUTING_RULES: Known = {
    "default_provider": (UNSUPPORTED, "never had an effect; a name that nobody serves is refused (400)"),
    "default_fallback": (UNSUPPORTED, "never had an effect; write llm_routing.default_fallbacks"),
    "request_metadata_routing": (
        UNSUPPORTED,
        "never had an effect; a model's tags route by the header x-litellm-tags, a capability by name",
    ),
    "model_size_routing": (UNSUPPORTED, "never had an effect; make capabilities such as small and large"),
}

SPECIAL_CASES: Known = {
    "first_request_routing": (UNSUPPORTED, "never had an effect; a cold Ollama is waited for, see stream_timeout"),
    "rate_limited_fallback": (NO_MEANING, "always so: on 429 the next step of the chain answers"),
    "error_based_routing": (
        UNSUPPORTED,
        "never had an effect; every error goes down the chain, context_window_fallbacks and content_policy_fallbacks "
        "are for two of them",
    ),
    "geographic_routing": (UNSUPPORTED, "never had an effect; a model's tags route by the header x-litellm-tags"),
}

PATTERNS = (
    UNSUPPORTED,
    "never had an effect, and the gateway knows no regular expressions; write the names as models, aliases or "
    "capabilities",
)

TOP_MAPPINGS: Known = {"metadata": NOTE, "patterns": PATTERNS}
