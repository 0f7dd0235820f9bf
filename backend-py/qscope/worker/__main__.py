"""``python -m qscope.worker --socket P --ready-fd 3 [--owned] [--spare] [--reflection]`` and ``--version``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

import qscope
from qscope.errors import UserError
from qscope.worker import PROTOCOL_VERSION
from qscope.worker.spare import Spare


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qscope.worker", description="Serves qscope on a Unix socket.")
    parser.add_argument(
        "--version", action="version", version=f"qscope {qscope.__version__} (protocol {PROTOCOL_VERSION})"
    )
    parser.add_argument("--socket", type=Path, required=True, help="path of the Unix socket, in a folder of mode 0700")
    parser.add_argument(
        "--ready-fd", type=int, help="file descriptor that gets one line of JSON when calls are answered"
    )
    parser.add_argument("--owned", action="store_true", help="end when standard input ends")
    parser.add_argument("--spare", action="store_true", help="keep a job process ready, so that a run starts at once")
    parser.add_argument("--reflection", action="store_true", help="serve gRPC reflection")
    options = parser.parse_args()
    # Ctrl-C while the imports below run is the command line's business as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    spare = Spare(kept=options.spare and not options.owned)
    if options.spare:
        spare.prepare()

    import asyncio

    from qscope.worker.server import serve

    try:
        asyncio.run(serve(options.socket.absolute(), options.ready_fd, options.owned, options.reflection, spare))
    except UserError as error:
        print(f"qscope worker: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Background threads (standard input, the import of torch) must not delay or disturb the end.
    os._exit(code)
