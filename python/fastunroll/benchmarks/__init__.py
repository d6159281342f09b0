"""The benchmark suite: this package against other tools, with the targets it is held to."""
