"""Files of embeddings: rows are written as they are computed."""

import numpy as np

from mmf_flava.evaluation.embedding_files import NpyFile, write_embeddings


def test_appended_rows_give_the_file_of_numpy_save(tmp_path):
    for count in (1, 3, 2000):
        rows = np.random.default_rng(0).random((count, 5), np.float32)
        with NpyFile(tmp_path / "a.npy") as file:
            for first in range(0, count, 7):
                file.write(rows[first : first + 7])
        np.save(tmp_path / "b.npy", rows)
        assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_batches_are_not_kept(tmp_path):
    """When a batch is requested, the rows of the former one are in the file."""
    sizes = []

    def batches():
        for number in range(3):
            yield {"id": [f"{number}"], "image_vector": np.zeros((1, 2**16), np.float32)}
            sizes.append(next(tmp_path.glob(".out.*/image.npy")).stat().st_size)

    assert write_embeddings(batches(), tmp_path / "out") == 3
    assert sizes == [128 + 2**18 * number for number in (1, 2, 3)]
    assert np.load(tmp_path / "out" / "image.npy").shape == (3, 2**16)
