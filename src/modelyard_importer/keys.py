"""Keys of the old files that have no counterpart, and why. These need no code."""

from __future__ import annotations

from modelyard_importer.report import Outcome

Known = dict[str, tuple[Outcome, str]]

NO_MEANING, UNSUPPORTED = Outcome.NO_MEANING, Outcome.UNSUPPORTED

NOTE = (NO_MEANING, "a comment without effect")
COMMENT = (NO_MEANING, "kept as a comment")
BUDGET = (
    UNSUPPORTED,
    (
        "budgets are not supported; rpm and tpm limit a model, and the provider's own console"
        " limits spending"
    ),
)
CONDITION = (
    UNSUPPORTED,
    "conditions were never evaluated; declare a separate name or capability for the other route",
)
BY_HEALTH = (
    UNSUPPORTED,
    "the order of a chain is fixed; a model that fails is cooled down for llm_gateway.cooldown_s",
)
RETRIES = (NO_MEANING, "never read; the next step of the chain replaces a retry")

TOP_PROVIDERS: Known = {
    "metadata": NOTE,
    "health_checks": (
        NO_MEANING,
        "never read; playbooks/smoke.yml checks every service of the plan",
    ),
}

PROVIDER: Known = {
    "description": COMMENT,
    "health_endpoint": (NO_MEANING, "the gateway detects failures from requests"),
    "features": NOTE,
    "configuration": (
        NO_MEANING,
        (
            "never read; an external engine has its own settings, a deployed one (group) takes them"
            " as options of a model"
        ),
    ),
    "api_format": (NO_MEANING, "type implies it"),
    "gpu_memory_utilization": (NO_MEANING, "never read; a setting of the external engine"),
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
    "tags": (
        UNSUPPORTED,
        (
            "never had an effect; as tags of the model here they would route requests that send"
            " such a tag (x-litellm-tags, metadata.tags)"
        ),
    ),
    "options": (
        UNSUPPORTED,
        (
            "the gateway sends no Ollama options; put them into a Modelfile, or have the client"
            " send parameters"
        ),
    ),
}

EXACT_MATCH: Known = {
    "description": NOTE,
    "priority": (NO_MEANING, "never read; the chains set the order"),
    "fallback": (UNSUPPORTED, "never read; fallbacks are in llm_routing.fallbacks"),
    "budget": BUDGET,
}

CAPABILITY: Known = {
    "description": COMMENT,
    "provider": (NO_MEANING, "never read; the models determine it"),
    "providers": (NO_MEANING, "never read; the models determine it"),
    "routing_strategy": (UNSUPPORTED, "never had an effect; models are tried in the order listed"),
    "min_model_size": CONDITION,
    "min_context": CONDITION,
    "complexity_thresholds": CONDITION,
    "context_thresholds": CONDITION,
    "notes": NOTE,
    "fallback": (UNSUPPORTED, "never read; its models' fallbacks apply"),
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
        (
            "never had an effect; the gateway chooses by weight, because every other strategy "
            "ignores weights or starves a member"
        ),
    ),
    "parameters": (UNSUPPORTED, "never had an effect; they are settings of a strategy"),
}

MEMBER: Known = {
    "condition": CONDITION,
    "preferred_model": (
        UNSUPPORTED,
        "never had an effect; give this model its own name, or a chain",
    ),
}

ROUTING_RULES: Known = {
    "default_provider": (
        UNSUPPORTED,
        "never had an effect; a request for an unknown name is refused (400)",
    ),
    "default_fallback": (
        UNSUPPORTED,
        "never had an effect; a chain for all models without one is llm_routing.default_fallbacks",
    ),
    "request_metadata_routing": (
        UNSUPPORTED,
        (
            "never had an effect; a model's tags route by the header x-litellm-tags, a capability"
            " by name"
        ),
    ),
    "model_size_routing": (
        UNSUPPORTED,
        "never had an effect; make capabilities such as small and large",
    ),
}

SPECIAL_CASES: Known = {
    "first_request_routing": (
        UNSUPPORTED,
        "never had an effect; the gateway waits for a cold Ollama, see stream_timeout",
    ),
    "rate_limited_fallback": (
        NO_MEANING,
        "always the case: on 429 the next step of the chain answers",
    ),
    "error_based_routing": (
        UNSUPPORTED,
        (
            "never had an effect; every error uses the chain, context_window_fallbacks and "
            "content_policy_fallbacks are for two kinds of error"
        ),
    ),
    "geographic_routing": (
        UNSUPPORTED,
        "never had an effect; a model's tags route by the header x-litellm-tags",
    ),
}

PATTERNS = (
    UNSUPPORTED,
    (
        "never had an effect, and the gateway does not support regular expressions; write the names"
        " as models, aliases or capabilities"
    ),
)

TOP_MAPPINGS: Known = {"metadata": NOTE, "patterns": PATTERNS}
