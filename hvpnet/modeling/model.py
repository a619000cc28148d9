"""The whole model in eager PyTorch: the reference that every exported graph is held against.

Attribute names are those of the published checkpoints (`HMNeTNERModel`, `HMNeTREModel`), so that their state dicts load
as they are.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the field's name for it
from torchcrf import CRF

from hvpnet.modeling import visual_prefix
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.text_encoder import Attention, build_bert, encode_text


class HVPNeT(nn.Module):
    """Named entities (emissions and a CRF) or the relation of a marked pair, from text and pictures.

    `encode_pictures` and `forward` are the two exported graphs; `decode` is what follows them on the CPU. How BERT
    attends is `attention`, which an exporter replaces.
    """

    def __init__(self, config: HVPNeTConfig) -> None:
        super().__init__()
        self.config = config
        self.attention: Attention = F.scaled_dot_product_attention
        hidden, outputs = config.bert.hidden_size, len(config.labels)
        self.bert = build_bert(config.bert)
        if config.resnet is not None:
            self.image_model = visual_prefix.ImageModel(config.resnet, last_stage_only=config.variant == "flat")
            self.encoder_conv = visual_prefix.build_projection(config)
            if config.variant != "1t3":
                self.gates = visual_prefix.build_gates(config)
        if config.task == "ner":
            self.fc = nn.Linear(hidden, outputs)
            self.crf = CRF(outputs, batch_first=True)
            self.dropout = nn.Dropout(0.1)
        else:
            self.classifier = nn.Linear(hidden * (2 if config.head == "markers" else 1), outputs)

    def prefix(self, features: Tensor) -> Tensor:
        """Features [N, channels, 2, 2] of `image_model` -> prefix [N, layers, 2, prefix_length * hidden]."""
        length, layers = self.config.prefix_length, self.config.bert.num_hidden_layers
        if isinstance(self.encoder_conv, nn.ModuleList):
            return visual_prefix.stage_prefix(
                features, cast("Sequence[nn.Sequential]", self.encoder_conv), layers, length
            )
        return visual_prefix.gated_prefix(features, self.encoder_conv, cast("Sequence[nn.Linear]", self.gates), length)

    def encode_pictures(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, 224, 224] -> prefix [N, layers, 2, prefix_length * hidden]."""
        return self.prefix(self.image_model(images))

    def blank_prefix(self) -> Tensor:
        """The prefix [layers, 2, prefix_length * hidden] of the picture that stands for a missing one."""
        return self.encode_pictures(visual_prefix.blank_picture())[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        prefix: Tensor | None = None,
        head_index: Tensor | None = None,
        tail_index: Tensor | None = None,
    ) -> Tensor:
        """Text and prefixes to emissions or relation logits.

        Args:
            input_ids: [B, T] int64.
            attention_mask: [B, T], 1 = token.
            prefix: [B, pictures, layers, 2, prefix_length * hidden]; whole picture first,
                then objects. None for text_only.
            head_index: [B] int64, position of <s>; only for relations with the `markers` head.
            tail_index: [B] int64, position of <o>; likewise.

        Returns:
            Emissions [B, T, labels], or logits [B, relations].
        """
        hidden = encode_text(self.bert, input_ids, attention_mask, prefix, self.attention)
        return self.classify(hidden, head_index, tail_index)

    def classify(self, hidden: Tensor, head_index: Tensor | None = None, tail_index: Tensor | None = None) -> Tensor:
        """Hidden states [B, T, hidden] -> emissions [B, T, labels] or logits [B, relations]; see `forward`."""
        if self.config.task == "ner":
            emissions: Tensor = self.fc(self.dropout(hidden))
            return emissions
        logits: Tensor = self.classifier(self._pair(hidden, head_index, tail_index))
        return logits

    def _pair(self, hidden: Tensor, head_index: Tensor | None, tail_index: Tensor | None) -> Tensor:
        """[B, T, hidden] -> [B, 2 * hidden] at the markers, or [B, hidden] at [CLS]."""
        if self.config.head == "cls":
            return hidden[:, 0]
        if head_index is None or tail_index is None:
            raise TypeError("a relation model with the markers head needs head_index and tail_index")
        index = torch.stack([head_index, tail_index], dim=1)[:, :, None]  # [B, 2, 1]
        return hidden.gather(1, index.expand(-1, -1, hidden.shape[-1])).flatten(1)

    @torch.no_grad()
    def decode(self, outputs: Tensor, attention_mask: Tensor) -> list[list[int]]:
        """Decisions per tweet: one tag index per token from emissions [B, T, labels], or one relation from logits."""
        if self.config.task == "ner":
            tags: list[list[int]] = self.crf.decode(outputs.float(), attention_mask.bool())
            return tags
        return outputs.argmax(-1, keepdim=True).tolist()
