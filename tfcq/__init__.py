"""tfcq: quantization-friendly self-supervised learning for Keras."""
