"""The arithmetic of LiteRT's kernels, by kinds of operations; each says what it rounds and how."""
