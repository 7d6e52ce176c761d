"""Measure linod beside what else can run the tasks of a Django site: `python -m tests.benchmarks`.

Peers alternate within each repeat, so that what the machine does meanwhile hits all of them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .measures import MEASURES, Measure
from .peers import PEERS, Peer
from .table import table

DEFAULT_PEERS = "linod,original,aps-thread,aps-process,huey-thread"


def main() -> None:
    options = read_arguments()
    # A context is left, and its site ended, also when we are told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers = [PEERS[name] for name in options.peers.split(",")]
    measures = [measure for measure in MEASURES if not options.only or measure.name in options.only]
    for peer in peers:
        peer.python()  # not while something is measured
    results: list[dict[str, Any]] = []
    try:
        for result in take(measures, peers, options.repeat):
            print(short(result), file=sys.stderr, flush=True)
            results.append(result)
    finally:
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
        print(table(results))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    names = [measure.name for measure in MEASURES]
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--peers", default=DEFAULT_PEERS, help=f"of {', '.join(PEERS)}; default {DEFAULT_PEERS}")
    parser.add_argument("--repeat", type=int, metavar="N", help="how often; default 3 where timing matters, else 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each figure there")
    return parser.parse_args()


def take(measures: list[Measure], peers: list[Peer], repeat: int | None) -> Iterator[dict[str, Any]]:
    for measure in measures:
        for number in range(repeat or measure.repeat):
            with ThreadPoolExecutor(len(peers) if measure.quiet else 1) as pool:
                for peer, figures in zip(peers, pool.map(measure.take, peers), strict=True):
                    yield {"measure": measure.name, "peer": peer.name, "repeat": number, "figures": figures}


def short(result: dict[str, Any]) -> str:
    figures = ", ".join(f"{k} {v:.1f}" if v is not None else f"{k} -" for k, v in result["figures"].items())
    return f"{result['measure']} {result['peer']}: {figures}"


if __name__ == "__main__":
    main()
