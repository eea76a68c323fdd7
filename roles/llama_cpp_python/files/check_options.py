"""Read a command line as the server does, and stop before a model is loaded: what it does not know
is refused here.
"""

import argparse

import llama_cpp.server.__main__ as server

server.create_app = lambda **_: None
server.uvicorn.run = lambda *_, **__: None
# The error alone: what the server prints around it are pages.
argparse.ArgumentParser.print_usage = argparse.ArgumentParser.print_help = lambda *_: None
server.main()
