"""First updates on two of the formats of docs/own_data.md; ``make chaos`` trains on all."""

import pytest

for module in ("pandas", "datasets", "webdataset"):
    pytest.importorskip(module)

from tests.data.formats.first_updates import first_update  # noqa: E402
from tests.data.formats.tools import ROWS  # noqa: E402


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("compressed table and images", "finetune/demo_own"), ("datasets`, saved with splits", "pretrain/demo_own")],
)
def test_the_keys_of_the_page_are_all_that_a_run_needs(name, recipe, cache, tmp_path):
    (tmp_path / "cache").symlink_to(cache)
    (row,) = [row for row in ROWS if name in row[0]]
    result = first_update(tmp_path / "data", row, recipe)
    assert result["passed"], result
