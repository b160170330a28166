"""Post-training quantization: a trained model, some images, and no labels."""
