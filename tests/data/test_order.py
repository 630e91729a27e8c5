import pytest

from mmf_flava.data.order import Order, Unit, sample_generator, spread_units


def shards(*sizes):
    return [Unit(sum(sizes[:number]), 1, size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize("size", [1, 7, 10, 100, 117, 1000])
@pytest.mark.parametrize("lanes", [1, 3, 16, 256])
@pytest.mark.parametrize("sharded", [False, True])
def test_every_epoch_is_a_different_permutation(size, lanes, sharded):
    units = shards(*[3] * (size // 3), size % 3) if sharded else ()
    order = Order(size, seed=3, units=units, lanes=lanes)
    epochs = [[order.index(epoch * size + n) for n in range(size)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
    if size > 20:
        assert epochs[0] != epochs[1] != epochs[2]


def test_order_is_a_pure_function_of_seed_and_index():
    indices = [5000, 3, 77, 4999, 3, 123456, 0]
    expected = [Order(1000, seed=1, units=shards(600, 400)).index(n) for n in indices]
    order = Order(1000, seed=1, units=shards(600, 400))
    assert [order.index(n) for n in indices] == expected
    assert [Order(1000, seed=2, units=shards(600, 400)).index(n) for n in indices] != expected


def test_one_lane_reads_one_shard_after_the_other():
    order = Order(100, seed=0, units=shards(*[10] * 10), lanes=1)
    found = [order.index(n) // 10 for n in range(100)]
    assert found == [shard for shard in dict.fromkeys(found) for _ in range(10)]
    assert list(dict.fromkeys(found)) != list(range(10))


def test_samples_come_from_the_lanes_in_turn():
    """11 records and 4 lanes: the sequence of one lane, divided into lanes of 3, 3, 3 and 2 records."""
    sequence = [Order(11, seed=5, units=shards(4, 4, 3), lanes=1).index(n) for n in range(11)]
    order = Order(11, seed=5, units=shards(4, 4, 3), lanes=4)
    lanes = [sequence[0:3], sequence[3:6], sequence[6:9], sequence[9:11]]
    expected = [lane[number] for number in range(3) for lane in lanes if number < len(lane)]
    assert [order.index(n) for n in range(11)] == expected
    assert [order.lane(n) for n in range(13)] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0, 1]


def test_unshuffled_order_is_file_order():
    order = Order(4, shuffle=False)
    assert [order.index(n) for n in range(6)] == [0, 1, 2, 3, 0, 1]


def test_units_of_a_source_without_shards_span_all_records():
    assert spread_units(5) == [Unit(0, 1, 5)]
    units = spread_units(200_000, first=10)
    assert [(unit.first, unit.step) for unit in units] == [(10, 4), (11, 4), (12, 4), (13, 4)]
    assert sum(unit.size for unit in units) == 200_000


@pytest.mark.parametrize("units", [(), shards(*[10_000] * 7000)])
def test_seventy_million_records_need_little_memory(units):
    order = Order(70_000_000, seed=0, units=units)
    found = {order.index(n) for n in range(69_990_000, 69_995_000)}
    assert len(found) == 5000
    assert sum(permutation.nbytes for permutation in order._permutations.values()) < 5e7
    assert len(order._permutations) <= order.lanes + 8


def test_sample_generators_are_independent_and_deterministic():
    numbers = {
        (seed, n, stream): sample_generator(seed, n, stream).random()
        for seed in (0, 1)
        for n in (0, 1, 2**40)
        for stream in (0, 9)
    }
    assert len(set(numbers.values())) == 12
    assert sample_generator(1, 1, 9).random() == numbers[1, 1, 9]


def test_invalid_arguments_raise_an_error():
    for arguments in ({"size": 0}, {"size": 5, "lanes": 0}, {"size": 5, "units": shards(2, 2)}):
        with pytest.raises(ValueError, match=r"size|units"):
            Order(**arguments)
