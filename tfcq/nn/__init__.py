"""Quantized layers, and the conversion of any Keras model into one that takes a precision."""
