"""The benchmark on a GPU: ours against PyTorch; float32, TF32 and mixed precision apart."""
