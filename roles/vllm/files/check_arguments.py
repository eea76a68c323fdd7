"""Have vLLM's own parser read a command line, before the server that runs is stopped for it.

No model is loaded.
"""

import sys

from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

arguments = make_arg_parser(
    FlexibleArgumentParser(prog="vllm", usage="see `vllm serve --help`")
).parse_args()
if arguments.trust_remote_code:
    sys.exit(
        "vllm: error: --trust-remote-code runs code that comes with a model, which is not allowed"
    )
try:
    validate_parsed_serve_args(arguments)
except (TypeError, ValueError) as error:
    sys.exit(f"vllm: error: {error}")
