"""Mutated recipes: ``python -m tests.faults.recipe_mutations`` loads 3,000 of them and counts the outcomes.

Each changes one key of a shipped recipe; ``tests/config/recipe_mutations.py`` has the rules for the outcome.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from mmf_flava.command import ArgumentParser, command, integer
from tests.config.recipe_mutations import KINDS, check, mutate


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m tests.faults.recipe_mutations", description=__doc__)
    parser.add_argument("--mutations", type=integer(1), default=3000)
    parser.add_argument("--first", type=integer(0), default=0, help="number of the first mutation")
    options = parser.parse_args(arguments)
    counts, wrong, started, slowest = Counter(dict.fromkeys(KINDS, 0)), 0, time.perf_counter(), 0.0
    for seed in range(options.first, options.first + options.mutations):
        mutation = mutate(seed)
        counts[mutation.kind] += 1
        before = time.perf_counter()
        problems = list(check(mutation))
        slowest = max(slowest, time.perf_counter() - before)
        for problem in problems:
            print(f"{seed}: {problem}", file=sys.stderr, flush=True)
        wrong += bool(problems)
    record = {"test": "mutated recipes", "sent": options.mutations, **counts, "wrong": wrong}
    record |= {"slowest": round(slowest, 2), "seconds": round(time.perf_counter() - started), "passed": not wrong}
    print(json.dumps(record), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
