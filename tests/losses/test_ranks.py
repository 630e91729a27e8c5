"""Losses and gradients of 2 and 4 gloo processes against one process with the whole batch."""

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.functional import normalize

from mmf_flava.errors import UserError
from mmf_flava.losses.contrastive import GlobalContrastive, contrastive_loss
from mmf_flava.losses.masked_modeling import masked_cross_entropy
from mmf_flava.models.outputs import Contrast

PAIRS = 8
POSITIVE = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1]).bool()  # 4 ranks have 2, 1, 0 and 2 matching pairs
MASKED = (3, 0, 1, 2)  # masked positions of each of 4 ranks


def vectors():
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(PAIRS, 3, generator=generator, dtype=torch.double) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_(), torch.tensor(3.0, dtype=torch.double, requires_grad=True)


def contrast(image, text, temperature, rows=slice(None)):
    return Contrast(normalize(image[rows], dim=-1), normalize(text[rows], dim=-1), temperature, POSITIVE[rows])


def logits():
    return torch.randn(sum(MASKED), 5, generator=torch.Generator().manual_seed(1)).requires_grad_()


def one_of_many(rank: int, ranks: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous{ranks}", world_size=ranks, rank=rank)
    image, text, temperature = vectors()
    size = PAIRS // ranks
    share = contrastive_loss(contrast(image, text, temperature, slice(rank * size, (rank + 1) * size)), alone=False)
    share.backward()
    values = [share.detach(), image.grad, text.grad, temperature.grad]

    scores, counts = logits(), MASKED if ranks == 4 else (MASKED[0] + MASKED[1], MASKED[2] + MASKED[3])
    start = sum(counts[:rank])
    own = slice(start, start + counts[rank])
    modeling = masked_cross_entropy(scores[own], torch.arange(sum(MASKED))[own] % 5, alone=False)
    modeling.backward()
    values += [modeling.detach(), scores.grad]
    for value in values:
        dist.all_reduce(value)
    if rank == 0:
        torch.save([value / ranks for value in values], f"{folder}/{ranks}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_average_to_the_loss_and_gradient_of_one_process(ranks, tmp_path):
    multiprocessing.spawn(one_of_many, (ranks, str(tmp_path)), nprocs=ranks)
    image, text, temperature = vectors()
    whole = contrastive_loss(contrast(image, text, temperature))
    whole.backward()
    scores = logits()
    modeling = masked_cross_entropy(scores, torch.arange(sum(MASKED)) % 5)
    modeling.backward()
    expected = [whole, image.grad, text.grad, temperature.grad, modeling, scores.grad]
    for found, value in zip(torch.load(tmp_path / f"{ranks}.pt"), expected, strict=True):
        assert torch.allclose(found, value, atol=1e-7)


def local_gradient(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=rank)
    image, text, temperature = vectors()
    own = slice(4 * rank, 4 * rank + 4)
    loss = GlobalContrastive(gradient="local")({}, {"contrast": contrast(image, text, temperature, own)})
    loss.backward()
    others = slice(4 - 4 * rank, 8 - 4 * rank)
    assert not image.grad[others].any() and not text.grad[others].any() and image.grad[own].any()
    torch.save([loss.detach(), image.grad], f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_the_local_gradient_stops_at_the_ranks_own_vectors(tmp_path):
    multiprocessing.spawn(local_gradient, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    image, text, temperature = vectors()
    whole = contrastive_loss(contrast(image, text, temperature))
    whole.backward()
    assert torch.allclose((found[0][0] + found[1][0]) / 2, whole, atol=1e-6)
    assert not torch.allclose((found[0][1] + found[1][1]) / 2, image.grad, atol=1e-4)


def evaluating(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=rank)
    if rank == 0:
        assert torch.isfinite(GlobalContrastive().eval()({}, {"contrast": contrast(*vectors())}))
    dist.destroy_process_group()


def test_an_evaluation_computes_a_loss_of_its_own(tmp_path):
    """The first process evaluates alone: a loss that waited for the others would never return."""
    multiprocessing.spawn(evaluating, (str(tmp_path),), nprocs=2)


def test_an_unknown_gradient_is_refused():
    with pytest.raises(UserError, match="'lokal'"):
        GlobalContrastive("lokal")
