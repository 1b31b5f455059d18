"""The parts of `bench.py`, a module for each section and what they share."""
