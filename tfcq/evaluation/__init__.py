"""Evaluation of frozen features at many bit-widths."""
