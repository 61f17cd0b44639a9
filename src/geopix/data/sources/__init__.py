"""Converters from public formats to the JSONL of :mod:`geopix.data.instruct`."""
