"""Services that get a run's metrics besides ``metrics.jsonl`` and TensorBoard: one class each, see ``registry``."""
