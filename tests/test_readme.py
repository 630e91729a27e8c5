"""README's table of what runs on which of MMF's lines: for each row the tests that show it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = "## On MMF's main branch"
LINES = ("rc10", "main")

PROOFS = {
    "pretraining, trainer `flava`": ["test_end_to_end.py::test_one_command_trains_evaluates_and_reports"],
    "`ddp`, `fsdp`, `fp16`": [
        "training/test_sharding.py::test_two_processes_train_as_one",
        "training/test_fsdp.py::test_two_processes_equal_one",
        "training/test_fsdp.py::test_half_precisions_learn",
        "training/test_fp16.py::test_it_learns_as_fp32_does",
    ],
    "zero-shot, retrieval, linear probe": [
        "test_configs.py::test_zero_shot_recipes_run",
        "evaluation/test_karpathy_run.py::test_one_process_and_two_have_equal_figures",
        "evaluation/test_linear_probe_run.py::test_one_process_and_two_have_equal_figures",
    ],
    "finetuning, trainer `flava_finetune`": [
        "finetuning/test_finetuning.py::test_labelled_images",
        "finetuning/test_finetuning.py::test_from_a_pretraining_run",
        "finetuning/test_finetuning.py::test_by_the_commands_of_the_recipe",
    ],
    "`hateful_memes`, `vqa2`, `visual_entailment` with images": [
        "finetuning/test_finetuning.py::test_memes_are_learnt_from_picture_and_words_together",
        "finetuning/test_finetuning.py::test_vqa_answers_are_learnt",
        "finetuning/test_finetuning.py::test_snli_ve",
    ],
    "GLUE by our `glue`": ["finetuning/test_glue_recipes.py::test_a_twin_trains"],
    "GLUE by MMF's `glue_*`": ["finetuning/test_main_datasets.py::test_its_glue_is_learnt"],
    "`mmf_predict`": [
        "test_end_to_end.py::test_evaluation_alone_and_predictions",
        "finetuning/test_finetuning.py::test_the_submission_of_hateful_memes",
    ],
    "order of datasets, `multitasking.type`": [
        "data/test_turns.py::test_round_robin",
        "data/test_turns.py::test_ratios_have_the_frequencies",
        "data/test_turns.py::test_all_strategies_of_mmf_choose",
        "data/test_turns.py::test_a_strategy_of_ones_own_counts_its_calls",
    ],
    "callbacks": [
        "training/test_callbacks.py::test_callbacks_of_a_run_see_its_events_in_order_and_its_figures",
        "training/test_callbacks.py::test_rc10_has_no_callbacks_and_says_so",
    ],
    "pretraining, MMF's own trainer": [
        "test_main_trainer.py::test_it_trains_validates_saves_goes_on_and_evaluates",
        "test_main_trainer.py::test_what_needs_our_trainer_is_refused",
    ],
    "metrics `r@k_retrieval` of pairs": ["test_main_trainer.py::test_it_trains_validates_saves_goes_on_and_evaluates"],
    "MMF's own models": [
        "compat/test_mmf.py::test_a_stock_model_trains_evaluates_saves_resumes_and_predicts",
        "test_stock_models_main.py::test_two_datasets_by_turns_past_their_first_pass_and_on_after_a_resume",
    ],
}


def table() -> dict[str, dict[str, str]]:
    """``{row: {"rc10": cell, "main": cell}}``."""
    text = (ROOT / "README.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: dict(zip(LINES, cells, strict=True)) for name, *cells in rows[2:]}


def where(test: str) -> set[str]:
    """The lines on which a test runs, by its marks ``needs_main`` and ``needs_rc10`` or those of its file."""
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
    return {line for line in LINES if not names & {f"needs_{other}" for other in LINES if other != line}}


def test_every_row_has_its_tests():
    assert list(table()) == list(PROOFS)


@pytest.mark.parametrize("row", PROOFS)
def test_a_cell_says_what_the_tests_show(row):
    lines = {test: where(test) for test in PROOFS[row]}
    for line, cell in table()[row].items():
        assert cell
        if cell.startswith("no"):
            assert all(len(there) == 1 for there in lines.values()), f"a test of this row passes on {line}"
        else:
            assert any(line in there for there in lines.values()), f"no test of this row runs on {line}"
