"""All fault tests at full length: ``python -m tests.faults`` prints a JSON record per test; exit code 1 on failure."""

import sys

from tests.data.formats import first_updates
from tests.faults import (
    chaos,
    concurrent_reads,
    dino_kills,
    exact_kills,
    finetuning_kills,
    finetuning_processes,
    format_fuzzer,
    killed_runs,
    ordered_streams,
    recipe_mutations,
    save_faults,
    stops,
    unlike_recipes,
    unused_parameters,
)

TESTS = (
    recipe_mutations,
    unlike_recipes,
    format_fuzzer,
    ordered_streams,
    chaos,
    save_faults,
    concurrent_reads,
    unused_parameters,
    exact_kills,
    stops,
    killed_runs,
    dino_kills,
    finetuning_kills,
    finetuning_processes,
    first_updates,
)

sys.exit(max([test.main([]) for test in TESTS]))
