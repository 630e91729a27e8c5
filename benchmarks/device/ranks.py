"""Part ``ranks``: the demo on two ranks with ddp and fsdp, compared with one process.

Both ranks share the device through gloo, because NCCL needs a GPU for each rank; NCCL is tested by ``collectives``.
"""

from concurrent.futures import ThreadPoolExecutor

from device.context import Context
from device.precision import LIMITS
from device.runs import build_demo_run, loss_difference, prepare_demo

# (sharding, precision)
CASES = (("ddp", "fp32"), ("ddp", "bf16"), ("fsdp", "fp32"), ("fsdp", "bf16"), ("fsdp", "fp16"))
TINY_CASES = (("ddp", "fp32"), ("fsdp", "bf16"))


def run(context: Context) -> None:
    """Do all runs, on a GPU at the same time, and compare their losses."""
    prepare_demo(context)
    updates = f"training.max_updates={context.pick(20, 4)}"
    reference = build_demo_run(context, "one_rank", updates)
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
    with ThreadPoolExecutor(len(runs) + 1 if context.cuda else 1) as pool:
        first = pool.submit(reference.run)
        futures = {key: pool.submit(one.run) for key, one in runs.items()}
        for (sharding, precision), future in futures.items():
            name = f"{sharding} {precision}, two ranks"
            with context.attempt(name):
                first.result()
                future.result()
                difference, compared = loss_difference(runs[sharding, precision], reference)
                values = {"difference_of_losses": difference, "compared": compared}
                context.report_limited(name, "difference_of_losses", LIMITS[precision], **values)
