"""TensorRT engines of a bundle: how they are built, found again and run; needs no PyTorch."""
