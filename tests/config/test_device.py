"""``training.device``: valid names, and the messages for all others."""

import pytest

from mmf_flava.config.device import check_device, parse_device
from mmf_flava.errors import UserError


@pytest.mark.parametrize(
    ("name", "parsed"), [("cpu", ("cpu", None)), ("cuda", ("cuda", None)), ("cuda:12", ("cuda", 12))]
)
def test_valid_names(name, parsed):
    assert parse_device(name) == parsed


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gpu", "Did you mean 'cuda'"), ("GPU:1", "Did you mean 'cuda:1'"), ("CPU", "Did you mean 'cpu'"),
     ("cdua", "Did you mean 'cuda'"), ("cuda:", "Did you mean 'cuda'"), ("tpu", "Use cpu, cuda or cuda:N")],
)  # fmt: skip
def test_other_names_raise_user_error_with_the_closest_one(name, hint):
    with pytest.raises(UserError, match=f"training.device: {name!r} is not a device.*{hint}"):
        check_device(name, gpus=4)


def test_missing_gpus_raise_user_error():
    check_device("cpu", gpus=0, where="--device")
    check_device("cuda:1", gpus=2)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"training.device is {name}, but torch found no GPU"):
            check_device(name, gpus=0)
    with pytest.raises(UserError, match=r"cuda:2 was not found\. This process can use cuda:0 to cuda:1"):
        check_device("cuda:2", gpus=2)
