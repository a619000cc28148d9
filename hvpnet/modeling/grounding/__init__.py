"""Visual grounders in PyTorch: they find the objects that words name in a picture."""
