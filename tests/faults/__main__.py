"""All fault tests at full length: ``python -m tests.faults`` prints a JSON record per test; exit code 1 on failure."""

import sys

from tests.faults import (
    chaos,
    concurrent_reads,
    exact_kills,
    format_fuzzer,
    killed_runs,
    recipe_mutations,
    stops,
    unlike_recipes,
)

TESTS = (
    recipe_mutations,
    unlike_recipes,
    format_fuzzer,
    chaos,
    concurrent_reads,
    exact_kills,
    stops,
    killed_runs,
)

sys.exit(max([test.main([]) for test in TESTS]))
