"""F1 of a bundle's backends and precisions beside eager PyTorch, without any timing.

    python benchmarks/accuracy.py BUNDLE --checkpoint CHECKPOINT --data DATA --out FILE.json

the part of `hvpnet bench --data` that does not need a quiet machine.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from hvpnet.bench.accuracy import assess
from hvpnet.bench.candidates import COMPILED, Candidate, find_candidates
from hvpnet.bench.machine import describe_machine
from hvpnet.bench.report import accuracy_table
from hvpnet.cli.options import progress
from hvpnet.data import load_split
from hvpnet_runtime.backends import BACKENDS, load_backend
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import HvpnetError


def runs_here(bundle: Bundle, candidate: Candidate) -> bool:
    """Whether a candidate of the runtime loads; why not is said on standard error."""
    try:
        load_backend(bundle, candidate.backend, precision=candidate.precision).close()
    except HvpnetError as error:
        print(f"{candidate.name}: {error}", file=sys.stderr)
        return False
    return True


def main() -> None:
    """Score, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    bundle, split = Bundle.load(options.bundle), load_split(options.data, "test")
    tried = find_candidates(bundle.manifest.precision, "bf16", tuple(BACKENDS))
    candidates = [each for each in tried if each.backend != COMPILED and (each.is_pytorch or runs_here(bundle, each))]
    found = list(assess(bundle, options.checkpoint, split, candidates, progress))
    print(f"{len(split.examples)} tweets\n\n{accuracy_table(found)}")
    results = {
        "data": options.data.absolute().name,
        "machine": describe_machine(),
        "candidates": [asdict(each) | {"agreement": each.agreement} for each in found],
    }
    options.out.write_text(json.dumps(results, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main()
