"""A small OWL-ViT with random weights that tell one patch and one query from another."""

from pathlib import Path

import torch

from hvpnet.demo.grounder import write_new_grounder


def write_random_owl_vit(folder: Path) -> Path:
    """Writes the checkpoint into a folder, which it returns."""
    torch.manual_seed(7)
    model = write_new_grounder(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = 0.1 if ".logit_" in name else 1.5  # or every query would choose the same patch
                parameter.normal_(std=scale / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)
    return folder
