"""Precisions, ranges and quantizers: pure functions and the serializable classes over them."""
