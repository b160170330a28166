"""Conversion to LiteRT and the check that it computes what was evaluated."""
