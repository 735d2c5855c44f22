"""MLflow: one run per stage under one run per recipe, and the model registry."""
