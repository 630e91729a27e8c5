"""Runs of the real ``mmf_run`` in their own processes, and comparisons of their losses and weights."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from device.context import Context

DEMO = Path(__file__).parents[2] / "projects" / "flava" / "configs" / "demo.yaml"
LOG_INTERVAL = 2  # updates per log record
# options of the demo for --tiny
TINY_DEMO = (
    *(
        f"model_config.flava.{encoder}.{size}"
        for encoder in ("image_encoder", "text_encoder", "multimodal_encoder")
        for size in ("num_layers=1", "hidden_size=32", "mlp_size=64", "num_heads=2")
    ),
    "model_config.flava.projection_size=16",
    "training.batch_size=16",
    "training.num_threads=1",
    "evaluation.retrieval=null",
    "evaluation.examples=null",
)
SMALLEST = 1e-3  # losses below this are compared absolutely


class MmfRun:
    """One or several processes of ``mmf_run`` in one run folder.

    Args:
        name: of the run folder and of the logs.
        options: ``key=value`` options.
        processes: number of ranks; they share the device, so that several need ``distributed.backend=gloo``.
        folder: the run folder, if it is not ``name``.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        options: Sequence[str] = (),
        recipe: Path = DEMO,
        processes: int = 1,
        folder: str | None = None,
    ) -> None:
        self.context, self.name, self.processes = context, name, processes
        self.folder = context.work / "runs" / (folder or name)
        common = [f"config={recipe}", f"training.device={context.device}", "training.tensorboard=false"]
        self.options = [*common, f"env.save_dir={self.folder}", f"env.data_dir={context.work / 'data'}", *options]
        self.logs = [
            context.out / "logs" / f"run_{name}{f'_{rank}' * (processes > 1)}.log" for rank in range(processes)
        ]
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all processes; their output goes to the logs."""
        if "checkpoint.resume=true" not in self.options:
            shutil.rmtree(self.folder, ignore_errors=True)
        port = str(find_free_port())
        for rank, log in enumerate(self.logs):
            environment = {**os.environ, "MMF_CACHE_DIR": str(self.context.work / "cache"), "OMP_NUM_THREADS": "1"}
            if self.processes > 1:  # as torchrun sets them, but all ranks use the first GPU
                environment |= {"RANK": str(rank), "WORLD_SIZE": str(self.processes), "LOCAL_RANK": "0"}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            with open(log, "w") as output:
                command = [sys.executable, find_mmf_run(), *self.options]
                self.started.append(
                    subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=self.context.work)
                )

    def finish(self) -> list[int]:
        """Wait for all processes and return their exit codes; kill those that exceed the time limit."""
        return [self._wait(process) for process in self.started]

    def run(self) -> None:
        """Start the run and wait for its end.

        Raises:
            RuntimeError: a process has failed; the message has the end of its log.
        """
        self.start()
        for code, log in zip(self.finish(), self.logs, strict=True):
            if code:
                text = " ".join(log.read_text(errors="replace").split())
                raise RuntimeError(f"exit code {code}: {text[-300:]}")

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(self.context.run_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """Send SIGKILL to the processes that are running."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    @property
    def is_running(self) -> bool:
        """Whether a process has not ended."""
        return any(process.poll() is None for process in self.started)

    def records(self) -> list[dict[str, Any]]:
        """Return the training records of ``metrics.jsonl``, without an incomplete last line."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [record for record in map(json.loads, lines) if record["split"] == "train"]

    def losses(self) -> dict[tuple[int, str], float]:
        """Return (update, name of the loss) -> loss; after a resume, the later value of an update."""
        return {(row["update"], name): loss for row in self.records() for name, loss in row["losses"].items()}

    def evaluation(self) -> dict[str, Any]:
        """Return the metrics of the final evaluation."""
        return json.loads((self.folder / "evaluation.json").read_text())

    def newest_checkpoint(self) -> Path:
        """Return the folder of the newest checkpoint."""
        return max((self.folder / "checkpoints").glob("update_*"))

    def skipped_batches(self) -> tuple[int, int]:
        """Return the number of batches whose fp16 gradients overflowed, and the number of updates before the last."""
        state = json.loads((self.newest_checkpoint() / "state.json").read_text())
        skipped = state["loader"]["draws"] - state["update"]
        return skipped, state["precision"]["last_overflow_iter"] + 1 - skipped if skipped else 0


def build_demo_run(context: Context, name: str, *options: str, **arguments: Any) -> MmfRun:
    """Return a short run of the demo with ``options``; ``arguments`` as of ``MmfRun``."""
    updates, interval = context.pick(200, 12), context.pick(40, 4)
    short = [f"training.max_updates={updates}", f"training.checkpoint_interval={interval}", "training.num_workers=1"]
    short += [f"training.log_interval={LOG_INTERVAL}", *context.pick((), TINY_DEMO)]
    return MmfRun(context, name, [*short, *options], **arguments)


def prepare_demo(context: Context) -> None:
    """Prepare the demo's data for all runs, if they are missing.

    Raises:
        RuntimeError: the command failed.
    """
    command = [sys.executable, "-m", "mmf_flava.data.prepare", "demo", "--quiet"]
    command += ["--out", str(context.work / "data" / "flava_demo")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the demo's data were not prepared: {done.stderr[-300:]}")


def loss_difference(
    run: MmfRun, reference: MmfRun, after: int = 0, last: int | None = None
) -> tuple[float | None, int]:
    """Return the largest relative difference of a loss, and the number of losses compared; None if there are none.

    Args:
        after, last: compare the log records of updates after the first number, and up to the second.
    """
    losses, expected = run.losses(), reference.losses()
    common = [key for key in losses.keys() & expected.keys() if key[0] - LOG_INTERVAL >= after]
    common = [key for key in common if last is None or key[0] <= last]
    differences = [abs(losses[key] - expected[key]) / max(abs(expected[key]), SMALLEST) for key in common]
    return max(differences, default=None), len(common)


def report_comparison(
    context: Context, name: str, run: MmfRun, reference: MmfRun, limit: float, last: int | None = None, **values: Any
) -> None:
    """Report the losses' difference between two runs, which must not exceed ``limit``; ``last`` as above.

    fp16 skips batches at the start until its loss scale fits. Only later updates are compared; if the runs have skipped
    different numbers of batches, all updates have different batches, and none are compared.
    """
    (skipped, after), (expected, expected_after) = run.skipped_batches(), reference.skipped_batches()
    if skipped != expected:
        context.report(name, skipped=f"{skipped} batches overflowed, {expected} in the reference", **values)
        return
    difference, compared = loss_difference(run, reference, max(after, expected_after), last)
    values = {"difference_of_losses": difference, "compared": compared, **values}
    context.report_limited(name, "difference_of_losses", limit, **values)


def weight_difference(run: MmfRun, reference: MmfRun) -> float:
    """Return the largest absolute difference of a weight in the newest checkpoints."""
    weights, expected = (load_file(one.newest_checkpoint() / "model.safetensors") for one in (run, reference))
    return max((weights[name].float() - value.float()).abs().max().item() for name, value in expected.items())


def find_mmf_run() -> str:
    """Return the path of ``mmf_run``, preferably the one of this interpreter's environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if found := shutil.which("mmf_run", path=path):
        return found
    raise RuntimeError("mmf_run was not found. Install MMF, for example with `make device`.")


def find_free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
