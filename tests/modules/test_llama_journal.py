"""What llama-server prints and what the journal shows of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "roles/llama_cpp/files/journal.py"
CUT = "... (the rest is not shown: it may be what a client sent)"
LISTENS = "0.00.856.271 I srv  llama_server: listening on http://127.0.0.1:8080"


def shown(*lines: str, status: int = 0) -> list[str]:
    """What passes of lines that a program prints, on either stream, before it exits."""
    code = "import sys; sys.stderr.write(sys.argv[1]); sys.exit(int(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT, sys.executable, "-c", code, "\n".join(lines), str(status)],
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
def test_no_text_of_a_client_passes(line: str, passes: str | None) -> None:
    assert shown(LISTENS, line) == [LISTENS, *([] if passes is None else [passes])]


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
def test_what_helps_passes(line: str) -> None:
    assert shown(LISTENS, line) == [LISTENS, line]


def test_before_it_listens_all_passes() -> None:
    """An error of a model needs its words, and nobody has asked yet."""
    line = "0.0 E srv  load_model: failed to load model, '/srv/model.gguf': \"not a GGUF\""
    assert shown(line, "anything at all", status=1) == [line, "anything at all"]


def test_the_program_is_the_process_itself(tmp_path: Path) -> None:
    """systemd's main process: its id, its signals, its exit status; its last words are shown."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('srv  x: ends', file=sys.stderr), sys.exit(7)))\n"
        "print(os.getpid(), 'listening on', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", SCRIPT, sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stderr is not None
        assert server.stderr.readline() == f"{server.pid} listening on\n"
        server.send_signal(signal.SIGTERM)
        assert server.stderr.read() == "srv  x: ends\n"
        assert server.wait(10) == 7
