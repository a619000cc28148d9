"""Train a model by the paper's recipe, as a TOML file describes it; run again, it goes on where it stopped."""

from dataclasses import asdict, dataclass
from pathlib import Path

from hvpnet.cli.options import ShownOptions, argument, note, progress, show


@dataclass(frozen=True, kw_only=True)
class Options(ShownOptions):
    """What `hvpnet train` was asked to do."""

    config: Path = argument("a TOML file, such as hvpnet recipe prints")


def run(options: Options) -> int:
    """Train, or go on training, and show the best checkpoint's scores."""
    from hvpnet.training.config import TrainingConfig

    config = TrainingConfig.read(options.config)
    progress("loading PyTorch")
    from hvpnet.training.run import train

    result = train(config, say=progress, report=note)
    show(
        {
            "checkpoint": str(result.checkpoint),
            "best_epoch": result.best_epoch,
            "dev": asdict(result.dev),
            **({"test": asdict(result.test)} if result.test else {}),
        },
        as_json=options.json,
    )
    return 0
