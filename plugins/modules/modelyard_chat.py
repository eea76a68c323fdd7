#!/usr/bin/python
"""Ask the gateway one question."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_chat
short_description: Ask the gateway one question
description:
  - Sends one chat request through the front end of the host, with a key read from the host's
    credentials, and returns the answer.
options:
  prompt:
    description: The question.
    type: str
    default: Say hello.
  max_tokens:
    description: Length of the answer, in tokens.
    type: int
    default: 32
extends_documentation_fragment: [modelyard_gateway]
author: Modelyard
"""

EXAMPLES = r"""
- name: Gateway answers a chat
  modelyard_chat:
    url: http://127.0.0.1:4000
    model: llama-cpp-native
"""

RETURN = r"""
answer:
  description: What the model said.
  type: str
  returned: success
model:
  description: The name that the gateway says answered.
  type: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
"""

import json
import time

from ansible.module_utils.modelyard_checks import (
    GATEWAY_OPTIONS,
    CheckError,
    describe,
    request,
    said,
)
from ansible.module_utils.modelyard_module import new_module


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            **GATEWAY_OPTIONS,
            "prompt": {"type": "str", "default": "Say hello."},
            "max_tokens": {"type": "int", "default": 32, "no_log": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    started = time.monotonic()
    body = {
        "model": params["model"],
        "messages": [{"role": "user", "content": params["prompt"]}],
        "max_tokens": params["max_tokens"],
    }
    check = {
        "url": f"{params['url']}/v1/chat/completions",
        "bearer": params["bearer"],
        "timeout_s": 120,
    }
    try:
        status, answer = request(check, None, body)
        if status != 200:
            raise CheckError(
                f"the gateway answered {status}: {answer.decode('utf-8', 'replace')[:500]}"
            )
        parsed = json.loads(answer)
        content = said(parsed["choices"][0]["message"])
    except CheckError as error:
        module.fail_json(msg=str(error))
    except (OSError, ValueError, LookupError) as error:
        module.fail_json(msg=f"{params['url']}: {describe(error)}")
    module.exit_json(
        changed=False,
        answer=content,
        model=parsed.get("model"),
        seconds=round(time.monotonic() - started, 2),
    )


if __name__ == "__main__":
    main()
