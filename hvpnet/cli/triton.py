"""Write a Triton model repository of a bundle. Needs no PyTorch."""

from dataclasses import dataclass
from pathlib import Path

from hvpnet.cli.options import ShownOptions, argument, option, progress, select, show
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.triton import Form, RepositoryOptions, write_repository


@dataclass(frozen=True, kw_only=True)
class Options(ShownOptions):
    """What `hvpnet triton` was asked to do."""

    bundle: Path = argument()
    out: Path = argument("the repository's folder; must not exist")
    form: Form = option(
        "Triton's backend for the graphs, or all in its Python backend (default onnxruntime)", default="onnxruntime"
    )
    graphs: str | None = option(
        "precision of the ONNX graphs (default: fp16 where there is one, else fp32), or which folder of engines/"
        " (default: the only one)"
    )
    name: str = option("of the model that answers requests (default hvpnet)", default="hvpnet")
    max_batch: int | None = option("most tweets in one run (default 32)")
    instances: int = option("processes of the Python model (default 1)", default=1)


def run(options: Options) -> int:
    """Write the repository and say what is in it."""
    repository = select(RepositoryOptions, options)
    progress("checking the bundle's files")
    bundle = Bundle.load(options.bundle)
    progress("copying them")
    models = write_repository(bundle, options.out, repository)
    show({"repository": str(options.out), "form": repository.form, "models": models}, as_json=options.json)
    return 0
