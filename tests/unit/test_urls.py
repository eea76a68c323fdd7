"""Addresses of providers: what cannot be one is refused, what is surely meant is called, and what
is doubtful gets a warning."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import change, compiled, document, refused

from modelyard.compile import Compiled

URL = "base_url: https://api.example.org/v1"
FLEET = {"llm_stack": ["gw1", "gw2", "one"], "llm_gateway": ["gw1", "gw2"], "llm_redis": ["one"]}
ADDRESSES = {"gw1": "10.0.0.11", "gw2": "10.0.0.12", "one": "10.0.0.21"}


def at(url: str, kind: str = "openai_compatible", **arguments: Any) -> Compiled:
    text = change(URL, f"base_url: '{url}'").replace("type: openai\n", f"type: {kind}\n")
    return compiled(text, **arguments)


def warned(result: Compiled) -> list[tuple[str, int | None]]:
    assert result.errors == [], [one.render() for one in result.errors]
    return [
        (one.code, one.origin.line if one.origin else None)
        for one in result.warnings
        if one.code.startswith("address")
    ]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://api.openai.com/v1/chat/completions", 'write "https://api.openai.com/v1"'),
        ("https://api.openai.com/v1/chat/completions/", 'write "https://api.openai.com/v1"'),
        ("http://10.0.0.5:8000/chat/completions", 'write "http://10.0.0.5:8000"'),
        ("https://api.openai.com/v1/embeddings", 'write "https://api.openai.com/v1"'),
        ("https://api.openai.com/v1/models", "ends before /models"),
        ("https://api.anthropic.com/v1/messages", "ends before /messages"),
        ("https://api.openai.com/v1/v1", 'write "https://api.openai.com/v1"'),
        ("https://api.example.org//v1", "one / instead of two"),
        ("https://api.example.org:0/v1", "1 to 65535"),
        ("https://api.example.org:65536/v1", "1 to 65535"),
        ("https://api.example.org:99999/v1", "1 to 65535"),
        ("https://api.example.org:/v1", "1 to 65535"),
        ("http://localhost:CUSTOM_PORT/v1", "1 to 65535"),
        ("https://${API_HOST}/v1", "no variables or placeholders"),
        ("https://$API_HOST/v1", "no variables or placeholders"),
        ("https://{host}/v1", "no variables or placeholders"),
        ("https://api.example.org/{path}", "no variables or placeholders"),
        ("https://<your-host>/v1", "no variables or placeholders"),
        ("http://10.0.0.5:${PORT}/v1", "no variables or placeholders"),
        ("http://999.1.1.1:8000/v1", "999.1.1.1 is no IP address"),
        ("http://10.0.0.256:8000/v1", "is no IP address"),
        ("http://10.0.0:8000/v1", "is no IP address"),
        ("http://10.0.0.1.2:8000/v1", "is no IP address"),
        ("http://010.0.0.1:8000/v1", "is no IP address"),
        ("http://2130706433:8000/v1", "is no IP address"),
        ("http://0x7f.1/v1", "is no IP address"),
        ("http://0.0.0.0:8000/v1", "stands for all addresses"),
        ("http://[::]:8000/v1", "stands for all addresses"),
        ("http://224.0.0.1:8000/v1", "multicast"),
        ("http://[ff02::1]:8000/v1", "multicast"),
        ("http://255.255.255.255:8000/v1", "reserved"),
        ("http://[fe80::1]:8000/v1", "link-local"),
        ("http://2001:db8::1:8000/v1", "has brackets"),
        ("http://[2001:db8::g]:8000/v1", "is no IP address"),
        ("http://[2001:db8::1/v1", "has brackets"),
        ("https://api..example.org/v1", "no name of a host"),
        ("https://-api.example.org/v1", "no name of a host"),
        ("https://api.exämple.org/v1", "xn--"),
        ("https://api.ex\u0430mple.org/v1", "xn--"),
        ("https:///v1", "name a host"),
        ("https:/api.example.org/v1", "http:// or https://"),
        ("ftp://api.example.org/v1", "http:// or https://"),
        ("https://api.example.org/v1?key=1", "a query"),
        ("https://api.example.org/v1#a", "a fragment"),
        ("https://api.example.org /v1", "white space"),
        ("https://api.example.org/v1\u200b", "no U+200B (ZERO WIDTH SPACE)"),
        ("https://api.example.org/v\u0661", 'write "%D9%A1" if it is meant'),
    ],
)
def test_what_cannot_be_called(url: str, says: str) -> None:
    text = refused(at(url), "invalid-value", 14)
    assert says in text
    assert "hint: " in text


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://${MIRROR}/small.gguf", "no variables or placeholders"),
        ("https://999.1.1.1/small.gguf", "is no IP address"),
        ("https://example.org:0/small.gguf", "1 to 65535"),
        ("https://example..org/small.gguf", "no name of a host"),
        ("https://example.org/small.gguf\u2060", "no U+2060 (WORD JOINER)"),
    ],
)
def test_other_urls_name_a_server_too(url: str, says: str) -> None:
    source = f"{{url: '{url}', sha256: {'b' * 64}}}"
    text = change("{path: /models/small.gguf}", source)
    assert says in refused(compiled(text), "invalid-value", 8)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.anthropic.com", "anthropic"),
        ("https://ollama.com/v1", "ollama_cloud"),
        ("https://openrouter.ai/api/v1", "openai_compatible"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "openai_compatible"),
        ("https://models.inference.ai.azure.com/v1", "openai_compatible"),
        ("https://x.openai.azure.com/openai/deployments/gpt/v1", "openai_compatible"),
        ("http://chat.lan:3000/api", "openai_compatible"),
        ("http://10.0.0.5:11434", "ollama"),
        ("http://10.0.0.5:8000/v1/", "vllm"),
        ("http://[2001:db8::5]:8000", "vllm"),
        ("http://[fe80::5%25eth0]:8000", "vllm"),
        ("http://gpu_box:8000/v1", "openai_compatible"),
        ("http://gpu9:8000/v1", "openai_compatible"),
        ("https://xn--bcher-kva.example/v1", "openai_compatible"),
        ("https://1.example.org./v1", "openai_compatible"),
        ("http://127.0.0.1:9999/v1", "openai_compatible"),
    ],
)
def test_what_can_be_called(url: str, kind: str) -> None:
    assert warned(at(url, kind)) == []


@pytest.mark.parametrize(
    ("kind", "url", "called"),
    [
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/", "https://api.openai.com/v1"),
        ("ollama_cloud", "https://ollama.com", "https://ollama.com/v1"),
        ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com"),
    ],
)
def test_what_is_surely_meant_is_called(kind: str, url: str, called: str) -> None:
    result = at(url, kind)
    assert warned(result) == [("address-corrected", 14)]
    assert f'write "{called}"' in result.warnings[0].render()
    entry = next(e for e in document(result)["model_list"] if e["model_name"] == "big-cloud")
    assert entry["litellm_params"]["api_base"] == called


@pytest.mark.parametrize("kind", ["ollama", "ollama_cloud"])
@pytest.mark.parametrize("path", ["/api", "/api/", "/api/chat", "/api/generate"])
def test_an_api_that_is_not_openais(kind: str, path: str) -> None:
    text = refused(at(f"http://10.0.0.5:11434{path}", kind), "invalid-value", 14)
    assert 'write "http://10.0.0.5:11434/v1"' in text


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://127.0.0.1:4000/v1", "the front end of one"),
        ("http://localhost:4000/v1", "the front end of one"),
        ("http://[::1]:4000/v1", "the front end of one"),
        ("http://one:4000/v1", "the front end of one"),
        ("http://ONE:4000/v1", "the front end of one"),
        ("http://127.0.0.1:4001/v1", "gateway slot"),
        ("http://127.0.0.1:6379/v1", "redis of one"),
    ],
)
def test_a_part_of_this_stack_is_no_provider(url: str, what: str) -> None:
    text = change("port: 4000", "port: 4000\n  listen: [0.0.0.0]").replace(
        "type: openai", "type: openai_compatible"
    )
    text = text.replace(URL, f"base_url: '{url}'")
    assert what in refused(compiled(text), "address-loop", 14)


def test_a_loop_by_the_address_of_another_gateway() -> None:
    wide = change("port: 4000", "port: 4000\n  listen: [0.0.0.0]").replace(
        "type: openai", "type: openai_compatible"
    )
    for url, loops in (
        ("http://10.0.0.12:4000/v1", True),
        ("http://gw2:4000/v1", True),
        ("http://10.0.0.21:4000/v1", False),
        ("http://10.0.0.12:4001/v1", False),
    ):
        text = wide.replace(URL, f"base_url: '{url}'")
        result = compiled(text, groups=FLEET, addresses=ADDRESSES)
        assert [one.code for one in result.errors] == (["address-loop"] if loops else [])
    off = wide.replace(URL, "status: disabled\n    base_url: 'http://gw2:4000/v1'")
    assert "address-loop" not in [one.code for one in compiled(off).errors]


@pytest.mark.parametrize(
    ("url", "doubtful"),
    [
        ("http://api.example.org/v1", True),
        ("http://8.8.8.8:8000/v1", True),
        ("http://[2606:4700::1]:8000/v1", True),
        ("http://10.0.0.5:8000/v1", False),
        ("http://192.168.1.5:8000/v1", False),
        ("http://100.64.0.5:8000/v1", False),
        ("http://gpu9:8000/v1", False),
        ("http://gpu9.lan:8000/v1", False),
        ("http://llm.corp.internal/v1", False),
        ("https://api.example.org/v1", False),
    ],
)
def test_a_key_in_clear_text(url: str, doubtful: bool) -> None:
    result = at(url)
    assert warned(result) == ([("address-doubtful", 14)] if doubtful else [])
    if doubtful:
        assert "CLOUD_KEY is sent to" in result.warnings[0].render()


def test_without_a_path() -> None:
    result = at("http://10.0.0.5:8000")
    assert warned(result) == [("address-doubtful", 14)]
    assert 'most servers want "http://10.0.0.5:8000/v1"' in result.warnings[0].render()


def test_scheme_and_host_have_no_case() -> None:
    result = at("HTTPS://LLM.Corp.Example/Team/v1")
    assert warned(result) == []
    assert "https://llm.corp.example/Team/v1" in str(document(result))


def test_a_path_has_case() -> None:
    assert warned(at("https://llm.corp.example/V1")) == [("address-doubtful", 14)]


@pytest.mark.parametrize("host", ["localhost.localdomain", "ip6-localhost", "[::ffff:127.0.0.1]"])
def test_other_names_of_the_gateway_itself(host: str) -> None:
    assert "is the front end of one itself" in refused(
        at(f"http://{host}:4000/v1"), "address-loop", 14
    )
