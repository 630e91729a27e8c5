"""Part ``precision``: the demo in every precision, compared with the CPU; SIGKILL and resume.

fp16 is compared with fp16, other precisions with fp32. The first updates have a limit. Later ones have none, because
training amplifies rounding errors. With ``training.deterministic``, a run that was killed and resumed must equal one
that was not interrupted.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from device.context import Context
from device.runs import (
    MmfRun,
    build_demo_run,
    loss_difference,
    prepare_demo,
    report_comparison,
    weight_difference,
)

FIRST_UPDATES = 10
# largest relative difference of a loss in the first updates
LIMITS = {"fp32": 0.005, "bf16": 0.1, "fp16": 0.05}
DETERMINISTIC = "training.deterministic=true"
NO_EVALUATION = ("evaluation.zero_shot=null", "evaluation.retrieval=null", "evaluation.examples=null")


def run(context: Context) -> None:
    """Do all runs, on a GPU at the same time, and report them."""
    prepare_demo(context)
    cpu = ["training.device=cpu", f"training.num_threads={context.pick(4, 1)}"]
    reference = build_demo_run(context, "cpu_fp32", *cpu, *NO_EVALUATION)
    # with fp16's own skipped updates; slow on a CPU
    short = [f"training.max_updates={FIRST_UPDATES}", *NO_EVALUATION]
    reference_fp16 = build_demo_run(context, "cpu_fp16", *cpu, "training.precision=fp16", *short)
    runs = {name: build_demo_run(context, name, f"training.precision={name}") for name in LIMITS}
    deterministic = build_demo_run(context, "deterministic", DETERMINISTIC)
    foreach = build_demo_run(context, "foreach", "optimizer.params.foreach=true")
    killed = build_demo_run(context, "killed", DETERMINISTIC)
    resumed = build_demo_run(context, "resumed", DETERMINISTIC, "checkpoint.resume=true", folder=killed.folder.name)
    tasks: dict[str, Callable[[], object]] = {"fp32 on the CPU": reference.run}
    tasks |= {"fp16 on the CPU": reference_fp16.run, **{name: one.run for name, one in runs.items()}}
    tasks |= {"deterministic": deterministic.run, "foreach AdamW": foreach.run}
    tasks["SIGKILL and resume"] = partial(kill_and_resume, context, killed, resumed)
    reports: dict[str, Callable[[object], None]] = {
        "fp32 on the CPU": lambda _: context.report("fp32 on the CPU", **describe(reference)),
        "fp16 on the CPU": lambda _: None,
        **{
            name: partial(report_precision, context, name, one, reference_fp16 if name == "fp16" else reference)
            for name, one in runs.items()
        },
        "deterministic": lambda _: report_difference(context, "deterministic and default", deterministic, runs["fp32"]),
        "foreach AdamW": lambda _: report_difference(context, "foreach and fused AdamW", foreach, runs["fp32"]),
        "SIGKILL and resume": partial(report_resume, context, resumed, deterministic),
    }
    with ThreadPoolExecutor(len(tasks) if context.cuda else 2) as pool:
        futures = {name: pool.submit(task) for name, task in tasks.items()}
        for name, report in reports.items():
            with context.attempt(name):
                report(futures[name].result())


def describe(run: MmfRun) -> dict[str, object]:
    """Return the last losses, the rate, and the zero-shot accuracy of a run if it has one."""
    last, accuracy = run.records()[-1], run.evaluation().get("zero_shot", {}).get("accuracy")
    losses = {name.removeprefix("flava_"): loss for name, loss in last["losses"].items()}
    return {"losses": losses, "samples_per_s": last["samples_per_second"], "zero_shot_accuracy": accuracy}


def report_precision(context: Context, precision: str, run: MmfRun, reference: MmfRun, _: object) -> None:
    """Report the difference between a run and the reference on the CPU, in the first updates and in all."""
    values = {"difference_of_all_losses": loss_difference(run, reference)[0], **describe(run)}
    report_comparison(context, precision, run, reference, LIMITS[precision], FIRST_UPDATES, **values)


def report_difference(context: Context, name: str, run: MmfRun, other: MmfRun) -> None:
    """Report the differences between two runs that only rounding distinguishes."""
    losses, compared = loss_difference(run, other)
    weights = weight_difference(run, other)
    context.report(name, difference_of_losses=losses, compared=compared, difference_of_weights=weights)


def kill_and_resume(context: Context, killed: MmfRun, resumed: MmfRun) -> int:
    """Kill a run with SIGKILL after some updates, and resume it. Return the last update before the kill.

    Raises:
        RuntimeError: the first run ended before it was killed, or the resumed run failed.
    """
    update, limit = context.pick(90, 7), time.monotonic() + context.run_seconds
    killed.start()
    reached = 0
    while killed.is_running and reached < update and time.monotonic() < limit:
        time.sleep(0.02)
        reached = max((record["update"] for record in killed.records()), default=0)
    if not killed.is_running:
        raise RuntimeError(f"the run ended at update {reached}, before it could be killed. See {killed.logs[0].name}")
    killed.kill()
    resumed.run()
    return reached


def report_resume(context: Context, resumed: MmfRun, reference: MmfRun, killed_at: object) -> None:
    """Report the differences between a resumed run and one that was not interrupted, whose weights must be equal."""
    losses, compared = loss_difference(resumed, reference)
    values = {"killed_at": killed_at, "difference_of_losses": losses, "compared": compared}
    values["difference_of_weights"] = weight_difference(resumed, reference)
    context.report_limited("SIGKILL and resume", "difference_of_weights", 0, **values)
