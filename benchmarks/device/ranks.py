"""Part ``ranks``: the demo on two ranks with ddp and fsdp, compared with one process in fp32, or fp16 for fp16.

Both ranks share the device through gloo, because NCCL needs a GPU for each rank; NCCL is tested by ``collectives``.
"""

from concurrent.futures import ThreadPoolExecutor

from device.context import Context
from device.precision import LIMITS
from device.runs import build_demo_run, prepare_demo, report_comparison

# (sharding, precision)
CASES = (("ddp", "fp32"), ("ddp", "bf16"), ("fsdp", "fp32"), ("fsdp", "bf16"), ("fsdp", "fp16"))
TINY_CASES = (("ddp", "fp32"), ("fsdp", "bf16"))


def run(context: Context) -> None:
    """Do all runs, on a GPU at the same time, and compare their losses."""
    prepare_demo(context)
    updates = f"training.max_updates={context.pick(20, 4)}"
    references = {
        precision: build_demo_run(context, f"one_rank_{precision}", updates, f"training.precision={precision}")
        for precision in context.pick(("fp32", "fp16"), ("fp32",))
    }
    runs = {
        (sharding, precision): build_demo_run(
            context,
            f"{sharding}_{precision}",
            updates,
            f"training.sharding={sharding}",
            f"training.precision={precision}",
            "distributed.backend=gloo",
            processes=2,
        )
        for sharding, precision in context.pick(CASES, TINY_CASES)
    }
    with ThreadPoolExecutor(len(runs) + len(references) if context.cuda else 1) as pool:
        first = {precision: pool.submit(one.run) for precision, one in references.items()}
        futures = {key: pool.submit(one.run) for key, one in runs.items()}
        for (sharding, precision), future in futures.items():
            name = f"{sharding} {precision}, two ranks"
            with context.attempt(name):
                compared_with = precision if precision in references else "fp32"
                first[compared_with].result()
                future.result()
                one, reference = runs[sharding, precision], references[compared_with]
                report_comparison(context, name, one, reference, LIMITS[precision])
