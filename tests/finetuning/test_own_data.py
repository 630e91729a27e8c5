"""The recipe for a user's own data: training by ``data_dir`` alone, then predictions of a file without labels."""

import csv
import json

from tests.data.own_toys import write_csv, write_own

DATA = "dataset_config.image_text_classification"
SMALL = (
    "training.max_epochs=2",
    "training.batch_size=8",
    "training.log_interval=1",
    "model_config.flava_classification.image_encoder.num_layers=1",
    "model_config.flava_classification.text_encoder.num_layers=1",
    "model_config.flava_classification.multimodal_encoder.num_layers=1",
)


def test_train_and_predict(finetune, tmp_path):
    data, folder = write_own(tmp_path, ["dog", "cat", "a, b"] * 10), tmp_path / "run"
    finetune("demo_own", folder, f"{DATA}.data_dir={data}", f"{DATA}.class_weights=balanced", *SMALL)
    log = (folder / "train.log").read_text()
    assert "image_text_classification, train: " in log and "a, b " in log
    (checkpoint,) = sorted((folder / "checkpoints").glob("update_*"))[-1:]
    assert json.loads((checkpoint / "processors.json").read_text())["classes"] == ["a, b", "cat", "dog"]
    metrics = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert {*metrics} == {"accuracy", "macro_f1"}
    rows = [("x", "0.png", "a red box"), ("x", "1.png", ""), ("y,z", "missing.png", "a box")]
    new = write_csv(tmp_path / "new.csv", ["id", "image", "title"], rows)
    options = (f"{DATA}.data_dir={new}", "run_type=test", "checkpoint.resume=true")
    finetune("demo_own", folder, *options, *SMALL, predict=True)
    (path,) = folder.rglob("reports/*.csv")
    with open(path, newline="", encoding="utf-8") as file:
        predicted = list(csv.DictReader(file))
    assert [row["id"] for row in predicted] == ["x", "x", "y,z"]
    for row in predicted[:2]:
        shares = {name: float(row[f"probability_{name}"]) for name in ("a, b", "cat", "dog")}
        assert abs(sum(shares.values()) - 1) < 1e-3 and row["prediction"] == max(shares, key=shares.__getitem__)
    assert predicted[2]["prediction"] == "" and predicted[2]["error"].startswith("vanished: ")
