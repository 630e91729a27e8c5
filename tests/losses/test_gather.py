"""Losses and gradients of 2 and 4 gloo processes, against one process with the global batch."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import normalize

from mmf_flava.errors import UserError
from mmf_flava.losses.contrastive import GlobalContrastive, contrastive_loss
from mmf_flava.losses.masked_modeling import masked_cross_entropy
from mmf_flava.models.outputs import Contrast
from tests.processes import run_ranks

PAIRS = 8
POSITIVE = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1]).bool()  # 4 ranks have 2, 1, 0 and 2 matching pairs
MASKED = (3, 0, 1, 2)  # masked positions of each of 4 ranks


def embeddings():
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(PAIRS, 3, generator=generator, dtype=torch.double) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_(), torch.tensor(3.0, dtype=torch.double, requires_grad=True)


def contrast(image, text, temperature, rows=slice(None)):
    return Contrast(
        normalize(image[rows], dim=-1), normalize(text[rows], dim=-1), temperature, POSITIVE[rows].nonzero()[:, 0]
    )


def logits():
    return torch.randn(sum(MASKED), 5, generator=torch.Generator().manual_seed(1)).requires_grad_()


def run_rank(rank: int, ranks: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous{ranks}", world_size=ranks, rank=rank)
    image, text, temperature = embeddings()
    size = PAIRS // ranks
    term = contrastive_loss(
        contrast(image, text, temperature, slice(rank * size, (rank + 1) * size)), single_process=False
    )
    term.backward()
    values = [term.detach(), image.grad, text.grad, temperature.grad]

    scores, counts = logits(), MASKED if ranks == 4 else (MASKED[0] + MASKED[1], MASKED[2] + MASKED[3])
    start = sum(counts[:rank])
    local = slice(start, start + counts[rank])
    modeling = masked_cross_entropy(scores[local], torch.arange(sum(MASKED))[local] % 5, single_process=False)
    modeling.backward()
    values += [modeling.detach(), scores.grad]
    for value in values:
        dist.all_reduce(value)
    if rank == 0:
        torch.save([value / ranks for value in values], f"{folder}/{ranks}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 4])
def test_average_over_ranks_equals_one_process(ranks, tmp_path):
    run_ranks(run_rank, (ranks, str(tmp_path)), ranks)
    image, text, temperature = embeddings()
    global_loss = contrastive_loss(contrast(image, text, temperature))
    global_loss.backward()
    scores = logits()
    modeling = masked_cross_entropy(scores, torch.arange(sum(MASKED)) % 5)
    modeling.backward()
    expected = [global_loss, image.grad, text.grad, temperature.grad, modeling, scores.grad]
    for actual, value in zip(torch.load(tmp_path / f"{ranks}.pt"), expected, strict=True):
        assert torch.allclose(actual, value, atol=1e-7)


def run_local_gradient(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=rank)
    image, text, temperature = embeddings()
    local = slice(4 * rank, 4 * rank + 4)
    loss = GlobalContrastive(gradient="local")({}, {"contrast": contrast(image, text, temperature, local)})
    loss.backward()
    others = slice(4 - 4 * rank, 8 - 4 * rank)
    assert not image.grad[others].any() and not text.grad[others].any() and image.grad[local].any()
    torch.save([loss.detach(), image.grad], f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_local_gradient_reaches_own_embeddings_only(tmp_path):
    run_ranks(run_local_gradient, (str(tmp_path),), 2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    image, text, temperature = embeddings()
    global_loss = contrastive_loss(contrast(image, text, temperature))
    global_loss.backward()
    assert torch.allclose((results[0][0] + results[1][0]) / 2, global_loss, atol=1e-6)
    assert not torch.allclose((results[0][1] + results[1][1]) / 2, image.grad, atol=1e-4)


def run_evaluation(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=rank)
    if rank == 0:
        assert torch.isfinite(GlobalContrastive().eval()({}, {"contrast": contrast(*embeddings())}))
    dist.destroy_process_group()


def test_loss_in_eval_mode_needs_no_other_process(tmp_path):
    """Only the first process evaluates; a collective operation would hang."""
    run_ranks(run_evaluation, (str(tmp_path),), 2)


def test_unknown_gradient_raises():
    with pytest.raises(UserError, match="'lokal'"):
        GlobalContrastive("lokal")
