"""``mmf_run`` in one of several processes that share a GPU through gloo, because NCCL needs a GPU for each process."""

import sys

sys.argv[0] = "mmf_run"  # mmf_flava reports errors of this script in one line
del sys.path[0]  # the device check's folder


def main() -> None:
    """Run ``mmf_run``. On a GPU, flatten FSDP's buckets of two dimensions, which gloo does not reduce."""
    import torch
    from mmf_cli.run import run

    if torch.cuda.is_available():
        from fairscale.internal import reduce_scatter_bucketer

        from mmf_flava.compat.defects.fairscale import flat_buckets

        flat_buckets(reduce_scatter_bucketer)
    run()


if __name__ == "__main__":
    main()
