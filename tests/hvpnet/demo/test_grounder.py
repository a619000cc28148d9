"""The tiny OWL-ViT of the demo: what it is made of, and what it has learned."""

import numpy as np
import pytest
import torch
from owl_vit_graphs import export_ground
from torchvision.ops import box_iou

from hvpnet.data.synthetic.scattered import FIGURE_OF, FIGURES, draw_figures, picture_size
from hvpnet.demo.grounder import FIGURE_OF_WORD, TYPE_WORDS, draw_for_grounding, train_grounder, write_new_grounder
from hvpnet.modeling.grounding.owl_vit import load_owl_vit
from hvpnet_export.grounding_parity import compare_grounder
from hvpnet_runtime.grounding.pictures import fit

pytestmark = pytest.mark.heavy


def test_words_and_pieces(tmp_path):
    write_new_grounder(tmp_path)
    grounder = load_owl_vit(tmp_path)
    assert sum(parameter.numel() for parameter in grounder.parameters()) < 700_000
    assert {FIGURE_OF_WORD[TYPE_WORDS[kind]] for kind in FIGURE_OF} == set(FIGURE_OF.values())
    for word in FIGURE_OF_WORD:
        assert grounder.tokenizer.encode(word).tokens == ["<|startoftext|>", f"{word}</w>", "<|endoftext|>"]
    unknown = grounder.tokenizer.encode("a ñandú at 7!")
    assert unknown.tokens[0] == "<|startoftext|>"
    assert unknown.tokens[1:-1].count("<|endoftext|>") == 0  # the piece of what is unknown: nothing is
    assert grounder.tokenizer.token_to_id("<|endoftext|>") == grounder.tokenizer.get_vocab_size() - 1


def asked(scene, rng):
    """One query for each figure: its name, or the word of its type."""
    words = {name: [word for word, figure in FIGURE_OF_WORD.items() if figure == name] for name in FIGURES}
    return [words[name][rng.integers(len(words[name]))] for name in scene.names]


def scattered(rng):
    """A picture as those of the data set scattered."""
    kind = list(FIGURE_OF)[rng.integers(4)]
    return draw_figures([FIGURE_OF[kind], "mug", "house"], picture_size(180, rng), rng, first_outside=True)


@torch.no_grad()
def found(ground, grounder, scene, words):
    """Boxes [Q, 4] in pixels of the picture, and scores [Q]."""
    fitted = fit(np.asarray(scene.picture), "owl-vit", grounder.size)
    boxes, scores = ground(torch.from_numpy(fitted.pixels.copy())[None], grounder.encode(words)[None])
    return torch.from_numpy(fitted.to_picture(boxes[0].numpy())), scores[0]


def overlaps(boxes, scene):
    """IoU of each box with the figure that was asked for."""
    return torch.diagonal(box_iou(boxes, torch.tensor(scene.boxes, dtype=torch.float32))).tolist()


def test_it_learns_to_find_figures(tmp_path):
    grounder = load_owl_vit(train_grounder(tmp_path / "owl", progress=lambda _: None))
    graph = export_ground(grounder, tmp_path)
    rng = np.random.default_rng(99)
    least = {draw_for_grounding: 0.5, scattered: 0.3}  # figures of scattered are as small as patches
    hits, same, misses = {draw_for_grounding: [], scattered: []}, [], []
    for draw in 60 * list(hits):
        scene = draw(rng)
        words = asked(scene, rng)
        boxes, scores = found(grounder, grounder, scene, words)
        others, _ = found(graph, grounder, scene, words)
        hits[draw] += [overlap >= least[draw] for overlap in overlaps(boxes, scene)]
        same.append(torch.allclose(boxes, others, atol=0.5))  # pixels
        absent = [name for name in FIGURES if name not in scene.names]
        misses.append((scores, found(grounder, grounder, scene, absent)[1]))
    assert np.mean(hits[draw_for_grounding]) >= 0.75
    assert np.mean(hits[scattered]) >= 0.75
    assert all(same)
    assert compare_grounder(grounder, graph).require().wrong == 0
    shown, absent = (torch.cat(each) for each in zip(*misses, strict=True))
    assert shown.median() > 3 * absent.median()  # scores tell what is there from what is not
