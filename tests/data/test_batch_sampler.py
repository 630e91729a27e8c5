from itertools import islice

from mmf_flava.data.batch_sampler import StreamBatchSampler


def test_ranks_divide_a_batch_by_slots():
    """12 samples and 4 lanes: slot 0 has the samples 0, 4, 8, slot 1 has 1, 5, 9; two ranks share no slot."""
    batches = [list(islice(StreamBatchSampler(12, rank, 2, 12, lanes=4), 2)) for rank in range(2)]
    assert batches[0] == [[12, 16, 20, 13, 17, 21], [24, 28, 32, 25, 29, 33]]
    assert batches[1] == [[14, 18, 22, 15, 19, 23], [26, 30, 34, 27, 31, 35]]


def test_neighbouring_ranks_share_a_slot_if_the_lanes_cannot_be_divided():
    pieces = [next(iter(StreamBatchSampler(12, rank, 3, lanes=4))) for rank in range(3)]
    assert pieces == [[0, 4, 8, 1], [5, 9, 2, 6], [10, 3, 7, 11]]
    assert [len({n % 4 for n in piece}) for piece in pieces] == [2, 2, 2]
