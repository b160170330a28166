"""Images with boxes: where they come from, and batches of them."""
