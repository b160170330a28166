"""Precisions, ranges and quantizers: pure tensor functions and the serializable classes over them."""
