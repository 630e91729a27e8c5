"""The tests of mmf_flava. They and the processes that they spawn count as a run of FLAVA, as under ``mmf_run``."""

from mmf_flava.compat import flava_run

flava_run.set_current(True)
