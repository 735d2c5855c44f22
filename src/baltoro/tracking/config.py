"""Settings of experiment tracking."""

from __future__ import annotations

from baltoro.core.config import StrictModel, execution


class TrackingConfig(StrictModel):
    """Where runs are recorded and models registered."""

    uri: str | None = execution(
        None,
        "MLflow tracking URI: sqlite:///FILE for one machine, http(s)://… for a server; empty takes "
        "MLFLOW_TRACKING_URI, and without it a SQLite file under storage.root",
    )
    experiment: str | None = execution(None, "experiment name; empty takes the recipe's name", min_length=1)
    model_name: str | None = execution(
        None, "registered model name; empty takes the recipe's name", min_length=1
    )
    system_metrics: bool = execution(True, "record CPU, memory and GPU use of the training run")
