"""TensorRT engines of a bundle: how they are built, and how they are found again.

They are built where they will run, from the bundle's ONNX graphs, without PyTorch; so this belongs to the runtime.
"""
