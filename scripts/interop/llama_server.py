"""A chat-completions server on this machine: llama.cpp's own, from the PyPI package `xllamacpp`.

    python scripts/interop/llama_server.py MODEL.gguf [--port 8089] [--alias smollm2] [--threads 2] [--slots 4]

It prints its address when it listens, and serves until it is ended.
"""

import argparse
import signal

import xllamacpp

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("model", help="a GGUF file")
PARSER.add_argument("--port", type=int, default=8089)
PARSER.add_argument("--alias", default="smollm2", help="the model's name in requests")
PARSER.add_argument("--threads", type=int, default=2)
PARSER.add_argument("--slots", type=int, default=4, help="requests that are answered at the same time")
PARSER.add_argument("--context", type=int, default=2048, help="tokens of one slot")


def main():
    arguments = PARSER.parse_args()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.model
    parameters.model_alias = {arguments.alias}
    parameters.port = arguments.port
    parameters.n_parallel = arguments.slots
    parameters.n_ctx = arguments.slots * arguments.context
    parameters.cpuparams.n_threads = arguments.threads
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
