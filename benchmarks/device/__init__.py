"""The device check: correctness and speed on one GPU. ``python benchmarks/device --help`` lists the options."""
