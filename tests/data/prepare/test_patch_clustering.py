import numpy as np

from mmf_flava.data.prepare import patch_clustering as module
from mmf_flava.data.prepare.patch_clustering import fit_codebook


def test_many_codes_are_fitted_to_mini_batches(monkeypatch):
    """Four colours: the centroids are the colours, with both algorithms."""
    images = [np.full((4, 4), value, np.uint8) for value in (0, 80, 160, 240) for _ in range(40)]
    exact = fit_codebook(images, 4, 4, 4)
    monkeypatch.setattr(module, "MAX_EXACT", 1)
    for centroids in (exact, fit_codebook(images, 4, 4, 4)):
        assert np.allclose(centroids.mean(1), np.array([0, 80, 160, 240]) / 255, atol=1e-6)
