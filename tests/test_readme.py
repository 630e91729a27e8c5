"""README's table of features by MMF version: each row has tests that verify it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = "## On MMF's main branch"
VERSIONS = ("rc10", "main")

TESTS = {
    "pretraining, trainer `flava`": ["test_end_to_end.py::test_one_command_trains_evaluates_and_reports"],
    "`ddp`, `fsdp`, `fp16`": [
        "training/test_sharding.py::test_two_processes_train_like_one",
        "training/test_fsdp.py::test_two_processes_equal_one_process",
        "training/test_fsdp.py::test_half_precision_learns",
        "training/test_fp16.py::test_fp16_learns_like_fp32",
    ],
    "zero-shot, retrieval, linear probe": [
        "test_configs.py::test_zero_shot_recipes_run",
        "evaluation/test_karpathy_run.py::test_results_are_equal_for_one_and_two_processes",
        "evaluation/test_linear_probe_run.py::test_results_are_equal_for_one_and_two_processes",
    ],
    "finetuning": [
        "finetuning/test_finetuning.py::test_labelled_images",
        "finetuning/test_finetuning.py::test_initialisation_from_a_pretraining_run",
        "finetuning/test_finetuning.py::test_recipe_commands",
    ],
    "`hateful_memes`, `vqa2`, `visual_entailment` with images": [
        "finetuning/test_finetuning.py::test_memes_are_learnt_from_image_and_text",
        "finetuning/test_finetuning.py::test_vqa_answers_are_learnt",
        "finetuning/test_finetuning.py::test_snli_ve",
    ],
    "GLUE with this plugin's `glue`": ["finetuning/test_glue_recipes.py::test_small_variant_trains"],
    "GLUE with MMF's `glue_*`": ["finetuning/test_main_datasets.py::test_mmfs_glue_is_learnt"],
    "`mmf_predict`": [
        "test_end_to_end.py::test_evaluation_alone_and_predictions",
        "finetuning/test_finetuning.py::test_hateful_memes_submission",
    ],
    "order of datasets, `multitasking.type`": [
        "data/test_dataset_schedule.py::test_round_robin",
        "data/test_dataset_schedule.py::test_ratios_match_the_sampling_frequencies",
        "data/test_dataset_schedule.py::test_all_mmf_strategies_are_supported",
        "data/test_dataset_schedule.py::test_custom_strategy_may_count_its_calls",
    ],
    "callbacks": [
        "training/test_callbacks.py::test_events_have_the_documented_order_losses_and_metrics",
        "training/test_callbacks.py::test_rc10_raises_user_error_for_callbacks",
    ],
    "pretraining, MMF's own trainer": [
        "test_main_trainer.py::test_trains_validates_saves_resumes_and_evaluates",
        "test_main_trainer.py::test_unsupported_options_are_errors",
    ],
    "metrics `r@k_retrieval` of pairs": ["test_main_trainer.py::test_trains_validates_saves_resumes_and_evaluates"],
    "MMF's own models": [
        "test_stock_project.py::test_stock_model_trains_evaluates_saves_resumes_and_predicts",
        "test_stock_models_main.py::test_two_datasets_train_beyond_their_first_epoch_and_resume",
    ],
}


def table() -> dict[str, dict[str, str]]:
    """Return the table as ``{row: {"rc10": cell, "main": cell}}``."""
    text = (ROOT / "README.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: dict(zip(VERSIONS, cells, strict=True)) for name, *cells in rows[2:]}


def versions_of(test: str) -> set[str]:
    """Return the MMF versions a test runs on, from the marks ``needs_main`` and ``needs_rc10`` of it or its file."""
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    marks = [*function.decorator_list]
    marks += [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node.targets[0])
    ]
    names = {part.id for mark in marks for part in ast.walk(mark) if isinstance(part, ast.Name)}
    return {version for version in VERSIONS if not names & {f"needs_{other}" for other in VERSIONS if other != version}}


def test_every_row_has_tests():
    assert list(table()) == list(TESTS)


@pytest.mark.parametrize("row", TESTS)
def test_cells_agree_with_the_tests(row):
    versions = {test: versions_of(test) for test in TESTS[row]}
    for version, cell in table()[row].items():
        assert cell
        if cell.startswith("no"):
            assert all(len(found) == 1 for found in versions.values()), f"a test of this row runs on {version}"
        else:
            assert any(version in found for found in versions.values()), f"no test of this row runs on {version}"
