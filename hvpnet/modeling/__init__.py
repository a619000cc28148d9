"""The trained model in PyTorch: its configuration, its modules, its checkpoints, and its inputs."""
