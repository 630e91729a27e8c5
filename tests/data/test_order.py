import pytest

from mmf_flava.data.order import Order, sample_generator


@pytest.mark.parametrize(("size", "block"), [(1, 1), (7, 3), (10, 1), (100, 16), (117, 1024), (1000, 250)])
def test_every_epoch_is_a_different_permutation(size, block):
    order = Order(size, seed=3, block_size=block)
    epochs = [[order.index(epoch * size + n) for n in range(size)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
    if size > 20:
        assert epochs[0] != epochs[1] != epochs[2]


def test_order_is_a_pure_function_of_seed_and_index():
    indices = [5000, 3, 77, 4999, 3, 123456, 0]
    expected = [Order(1000, seed=1, block_size=64).index(n) for n in indices]
    order = Order(1000, seed=1, block_size=64)
    assert [order.index(n) for n in indices] == expected
    assert [Order(1000, seed=2, block_size=64).index(n) for n in indices] != expected


def test_records_of_a_block_are_consecutive():
    order = Order(100, seed=0, block_size=10)
    for start in range(0, 100, 10):
        assert len({order.index(start + n) // 10 for n in range(10)}) == 1


def test_unshuffled_order_is_file_order():
    order = Order(4, shuffle=False)
    assert [order.index(n) for n in range(6)] == [0, 1, 2, 3, 0, 1]


def test_seventy_million_records_need_little_memory():
    order = Order(70_000_000, seed=0, block_size=1024)
    found = {order.index(n) for n in range(69_990_000, 69_995_000)}
    assert len(found) == 5000
    assert order._block_order.nbytes < 1e6
    assert len(order._record_orders) <= Order.CACHED_BLOCKS


def test_sample_generators_are_independent_and_deterministic():
    numbers = {
        (seed, n, stream): sample_generator(seed, n, stream).random()
        for seed in (0, 1)
        for n in (0, 1, 2**40)
        for stream in (0, 9)
    }
    assert len(set(numbers.values())) == 12
    assert sample_generator(1, 1, 9).random() == numbers[1, 1, 9]


def test_invalid_size_raises_an_error():
    with pytest.raises(ValueError, match="size"):
        Order(0)
