"""Every proof at full length, one line of JSON each: ``python -m tests.faults``; exit code 1 if one does not hold."""

import sys

from tests.faults import chaos, exact_kills, killed_runs, stops

sys.exit(max([proof.main([]) for proof in (chaos, exact_kills, stops, killed_runs)]))
