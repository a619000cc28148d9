"""Every kind of model that can be exported: task, variant of the paper, head."""

KINDS = (
    ("ner", "full", "markers"),
    ("ner", "flat", "markers"),
    ("ner", "1t3", "markers"),
    ("ner", "only_obj", "markers"),
    ("ner", "text_only", "markers"),
    ("re", "full", "markers"),
    ("re", "full", "cls"),
    ("re", "text_only", "cls"),
)
