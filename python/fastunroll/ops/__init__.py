"""Operators: schema and shape rules, the native CPU backend, the reference, and autograd."""
