"""The folder of a run: its settings, records, checkpoints and weights."""
