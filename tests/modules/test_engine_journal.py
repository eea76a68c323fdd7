"""What engines print and what the journal shows of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROLES = Path(__file__).parents[2] / "roles"
CUT = "... (the rest is not shown: it may be what a client sent)"
LISTENS = "0.00.856.271 I srv  llama_server: listening on http://127.0.0.1:8080"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """As in a release of llama-server."""
    return installed(tmp_path, "llama_cpp")


def installed(directory: Path, role: str) -> Path:
    for source in (ROLES / "engine/files/journal.py", ROLES / role / "files/journal_rules.py"):
        (directory / source.name).write_bytes(source.read_bytes())
    return directory / "journal.py"


def shown(script: Path, *lines: str, status: int = 0) -> list[str]:
    """What passes of lines that a program prints before it exits."""
    code = "import sys; sys.stderr.write(sys.argv[1]); sys.exit(int(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-I", script, sys.executable, "-c", code, "\n".join(lines), str(status)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        # Lines of llama.cpp 0c1e570, as they were seen.
        (
            '2.08.535.455 W srv    operator(): got exception: {"error":{"message":"MARK"}}',
            f"2.08.535.455 W srv    operator(): got exception{CUT}",
        ),
        (
            "2.08.465.135 I srv    handle: downloading image from 'http://x/MARK.png'",
            f"2.08.465.135 I srv    handle: downloading image from {CUT}",
        ),
        (
            "2.0 E srv    send_error: task id = 5, error: MARK",
            f"2.0 E srv    send_error: task id = 5, error{CUT}",
        ),
        (
            "2.0 E slot   operator(): id  3 | task 49 | got exception: MARK",
            f"2.0 E slot   operator(): id  3 | task 49 | got exception{CUT}",
        ),
        (
            "2.0 W srv  handle: unknown completion id=MARK",
            f"2.0 W srv  handle: unknown completion id{CUT}",
        ),
        ("2.0 W common_chat_peg_parse: unparsed peg output: MARK", None),
        ("2.0 W Ignoring content part type: MARK", None),
        ("2.0 E Tool call mismatch: prev='MARK' new='x'", None),
        ("parse: error parsing grammar: MARK", None),
        ("llama_grammar_init_impl: MARK", None),
        ("MARK: a second line of a text", None),
        ("", None),
        # Without time and level, as older servers print.
        ("srv  operator(): got exception: {MARK}", f"srv  operator(): got exception{CUT}"),
    ],
)
def test_no_text_of_a_client_passes(script: Path, line: str, passes: str | None) -> None:
    assert shown(script, LISTENS, line) == [LISTENS, *([] if passes is None else [passes])]


@pytest.mark.parametrize(
    "line",
    [
        "2.06.043.832 I slot print_timing: id  3 | task 45 | prompt eval time =       6.44 ms /"
        "    12 tokens (    0.54 ms per token,  1862.49 tokens per second)",
        "2.06.037.141 I slot launch_slot_: id  3 | task 45 | processing task, is_child = 0",
        "2.08.465.135 W slot   operator(): id  3 | task 49 | n_past was set to 23",
        "2.0 I srv  update_slots: all slots are idle",
        "2.0 E ggml_cuda_host_malloc: failed to allocate 1.00 MiB of pinned memory: out of memory",
        "2.0 E CUDA error: out of memory",
        "/build/ggml/src/ggml-cuda/ggml-cuda.cu:98: CUDA error",
        "2.0 E llama_decode: failed to decode, ret = -3",
    ],
)
def test_what_helps_passes(script: Path, line: str) -> None:
    assert shown(script, LISTENS, line) == [LISTENS, line]


def test_before_it_listens_all_passes(script: Path) -> None:
    """An error of a model needs its words, and nobody has asked yet."""
    line = "0.0 E srv  load_model: failed to load model, '/srv/model.gguf': \"not a GGUF\""
    assert shown(script, line, "anything at all", status=1) == [line, "anything at all"]


def test_the_program_is_the_process_itself(script: Path) -> None:
    """systemd's main process: its id, its signals, its exit status; its last words are shown."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('srv  x: ends', file=sys.stderr), sys.exit(7)))\n"
        "print(os.getpid(), 'listening on', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", script, sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stderr is not None
        assert server.stderr.readline() == f"{server.pid} listening on\n"
        server.send_signal(signal.SIGTERM)
        assert server.stderr.read() == "srv  x: ends\n"
        assert server.wait(10) == 7


UVICORN = "INFO:     Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)"


def test_of_llama_cpp_python_kinds_and_places_pass(tmp_path: Path) -> None:
    """Lines of 0.3.36, as they were seen."""
    printed = {
        'INFO:     127.0.0.1:4 - "POST /v1/chat/completions HTTP/1.1" 200 OK': True,
        'INFO:     127.0.0.1:4 - "POST /v1/MARK HTTP/1.1" 404 Not Found': False,
        "Exception: 7 validation errors:": "Exception" + CUT,
        "  {'type': 'literal_error', 'input': 'MARK-4711'}": False,
        '  File "/opt/x/llama_cpp/server/app.py", line 376, in create_chat_completion': True,
        "    POST /v1/chat/completions": False,
        "Traceback (most recent call last):": True,
        "    raise ValueError('MARK')": False,
        "fastapi.exceptions.RequestValidationError: MARK": (
            "fastapi.exceptions.RequestValidationError" + CUT
        ),
        "Llama.generate: 11 prefix-match hit, remaining 44 prompt tokens to eval": True,
        "llama_perf_context_print:        load time =     645.53 ms": True,
        "llama_grammar_init: MARK": False,
        "disconnected": False,
        "MARK: MARK": False,
    }
    wanted = [
        line if passes is True else passes
        for line, passes in printed.items()
        if passes is not False
    ]
    assert shown(installed(tmp_path, "llama_cpp_python"), UVICORN, *printed) == [UVICORN, *wanted]
