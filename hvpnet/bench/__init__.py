"""How fast a bundle answers, against its checkpoint in eager PyTorch on the same machine, and what that costs in F1."""
