"""`python -m tests.surface`: compare stock vLLM with ours on this machine, or two servers that are running."""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from alise_engine.serve import tiny_model
from tests.surface import servers
from tests.surface.compare import Answer
from tests.surface.fuzz import fuzz
from tests.surface.requests import SURFACE
from tests.surface.row import Request
from tests.surface.run import OURS, STOCK, Server, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.surface", description=__doc__)
    parser.add_argument("urls", nargs="*", metavar="URL", help="stock `vllm serve` and ours; without them both are started here")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose id contains this, and what they continue")
    parser.add_argument("--without", nargs="*", default=[], metavar="CASE", help="leave out the rows of these reports")
    parser.add_argument("--bodies", action="store_true", help="print both answers of an unlike row")
    parser.add_argument("--fuzz", action="store_true", help="send what schemathesis generates as well")
    arguments = parser.parse_args()
    if len(arguments.urls) not in (0, 2):
        parser.error(f"{len(arguments.urls)} URLs: give that of stock and that of ours, or none")
    with contextlib.ExitStack() as stack:
        if arguments.urls:
            stock, ours = Server(STOCK, arguments.urls[0]), Server(OURS, arguments.urls[1])
        else:
            model = tiny_model.write_model(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tiny")
            stock, ours = stack.enter_context(servers.both(model))
        result = play(stock, ours, _rows(arguments.only, set(arguments.without)))
        print(result.report(), flush=True)
        fuzzed = fuzz(stock, ours) if arguments.fuzz and not result.ended_early else None
    if fuzzed is not None:
        print(fuzzed.report())
    if arguments.bodies:
        for unlike in result.unlike:
            print(f"--- {unlike.request.id}", _text(unlike.stock), _text(unlike.ours), sep="\n")
    good = not (result.unlike or result.engine_deaths or result.ended_early)
    return 0 if good and (fuzzed is None or not (fuzzed.worse or fuzzed.engine_deaths)) else 1


def _rows(only: str, without: set[str]) -> list[Request]:
    wanted = [request for request in SURFACE if only in request.id and not set(request.case) & without]
    needed = {request.id for request in wanted} | {request.follows for request in wanted}
    return [request for request in SURFACE if request.id in needed]


def _text(answer: Answer | None) -> str:
    return "(not asked)" if answer is None else f"{answer.status} {dict(answer.headers)}\n{answer.body.decode(errors='replace')}"


if __name__ == "__main__":
    sys.exit(main())
