"""Training runs: the published recipe over a data set, resumable.

Source: published code, modules/train.py. It differs in two things: CRF and classifier are trained (see
`RunOptions.head_lr`), and the ResNet stays in evaluation mode, so that its features are those of serving and are
computed once.
"""

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from pydantic import TypeAdapter
from torch.optim.swa_utils import update_bn

from hvpnet.data import NER_LABELS, Split, find_split, load_split
from hvpnet.data.examples import SplitName
from hvpnet.errors import DataError, HvpnetError
from hvpnet.evaluation.eager import evaluate
from hvpnet.evaluation.metrics import require_scorer
from hvpnet.evaluation.scoring import Scores
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.picture_features import PictureFeatures, load_images, picture_files
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.modeling.visual_prefix import PICTURES
from hvpnet.training.config import TrainingConfig
from hvpnet.training.initialise import new_model
from hvpnet.training.run_folder import RunFolder, TrainingState
from hvpnet.training.trainer import Optimisation
from hvpnet_runtime.types import Progress

logger = logging.getLogger(__name__)

Entry: TypeAlias = dict[str, Any]
"""A line of `history.jsonl`: the epoch, its mean loss, and its scores on dev if they were taken."""

_PICTURES_TO_FIT = 64  # for the batch norms of a random ResNet
_SCORES: TypeAdapter[Scores] = TypeAdapter(Scores)


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run has reached.

    Attributes:
        best_epoch: the last epoch with the best dev F1.
        dev: scores of its checkpoint.
        test: likewise; None if the data set has no test split.
        checkpoint: its folder, with the tokenizer.
    """

    best_epoch: int
    dev: Scores
    test: Scores | None
    checkpoint: Path


def train(
    config: TrainingConfig, *, progress: bool = True, say: Progress = logger.info, report: Progress = logger.info
) -> TrainingResult:
    """Trains a model, on the GPU if there is one, or goes on with a run that was cut off.

    On a CPU a run that was cut off ends with the same weights, to the bit, as one that was not.

    Args:
        config: what to train, and where to.
        progress: show bars, if stderr is a terminal.
        say: is told what begins, and what each split has.
        report: is told the loss and the dev F1 of every epoch.

    Raises:
        ConfigError: the configuration is impossible, or its folder holds something else.
        DataError: the data set cannot be read, or has no pictures for a model that reads them.
        CheckpointError: given weights cannot be read or do not fit.
        PictureError: a picture cannot be read.
        MissingExtraError: what scores the data is not installed.
        HvpnetError: the loss diverged, another process trains there, or the folder cannot be written.
    """
    with RunFolder(config.train.out) as folder:
        folder.check(config)
        run = _Run(config, folder, progress=progress, say=say, report=report)
        state = folder.read_state()
        if state is not None:
            with folder.restoring():
                _check_history(state["history"], config)
        if state is None or len(state["history"]) < config.train.epochs:
            return run.result(run.fit(state))
        return run.result(state["history"])


class _Run:
    """One training run, with what all of it needs."""

    def __init__(
        self, config: TrainingConfig, folder: RunFolder, *, progress: bool, say: Progress, report: Progress
    ) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self._say, self._report = say, report
        self.training, self.dev = self._load("train"), self._load("dev")
        require_scorer(self.training.task)
        self.tokenizer = load_tokenizer(config.model.tokenizer, self.training.task)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fit(self, state: TrainingState | None) -> list[Entry]:
        """Trains from the state, or from the beginning, to the last epoch; returns the history."""
        model = self._model(state)
        tweets = [example.tweet for split in (self.training, self.dev) for example in split.examples]
        if model.config.pictures:
            self._say("computing the features of all pictures, once")
        features = PictureFeatures.compute(model, tweets, progress=self.progress)
        optimisation = Optimisation(model, self.tokenizer, self.training.examples, features, self.config.train)
        history: list[Entry] = []
        if state is None:
            self.folder.begin(self.config)
        else:
            with self.folder.restoring():
                optimisation.restore(state["optimizer"], state["scheduler"])
            history = state["history"]
        for number in range(len(history) + 1, self.config.train.epochs + 1):
            history.append(self._epoch(number, model, optimisation, features))
            if history[-1]["dev"] and _best(history) is history[-1]:
                self.folder.write_best(model, self.tokenizer)
            optimizer, scheduler = optimisation.optimizer.state_dict(), optimisation.scheduler.state_dict()
            self.folder.write_state(
                {"model": model.state_dict(), "optimizer": optimizer, "scheduler": scheduler, "history": history}
            )
        return history

    def result(self, history: list[Entry]) -> TrainingResult:
        """The scores of the best epoch; the test split is scored with its checkpoint."""
        best = _best(history)
        number, dev = best["epoch"], _SCORES.validate_python(best["dev"])
        try:
            find_split(self.config.data.root, "test")
        except DataError:
            return TrainingResult(number, dev, None, self.folder.best)
        model = load_checkpoint(self.folder.best).to(self.device)
        test = evaluate(model, self.tokenizer, self._load("test").examples)
        self._report(f"best epoch {number}: dev F1 {dev.f1:.4f}, test F1 {test.f1:.4f}")
        return TrainingResult(number, dev, test, self.folder.best)

    def _load(self, name: SplitName) -> Split:
        data, variant = self.config.data, self.config.model.variant
        pictures = None if variant == "text_only" else PICTURES
        try:
            split = load_split(data.root, name, data.on_bad_image, pictures=pictures)
        except DataError as error:
            raise DataError(str(error).replace("on_bad_image=", "data.on_bad_image = ")) from error
        if variant != "text_only" and not split.has_pictures:
            raise DataError(
                f"the {name} split of {data.root} has no folder of pictures, which variant {variant} reads: add it, or "
                'train model.variant = "text_only"'
            )
        self._say(f"reading the {name} split: {split.summary}")
        return split

    def _model(self, state: TrainingState | None) -> HVPNeT:
        """A new model, or the one of the state."""
        torch.manual_seed(self.config.train.seed)
        options = self.config.model
        model = new_model(options, self.training.task, self.training.relations or NER_LABELS, self.tokenizer)
        if state is not None:
            with self.folder.restoring():
                model.load_state_dict(state["model"])
        elif model.config.pictures and options.resnet_weights is None:
            self._fit_batch_norms(model)
        return model.to(self.device)

    def _fit_batch_norms(self, model: HVPNeT) -> None:
        """With the statistics it is made with, a random ResNet's features grow or vanish from stage to stage."""
        files = picture_files((example.tweet for example in self.training.examples), model.config)
        chosen = files[:: max(1, len(files) // _PICTURES_TO_FIT)]
        self._say(f"fitting the batch norms of a random ResNet, as no weights were given, to {len(chosen)} pictures")
        update_bn(load_images(chosen), model.image_model)

    def _epoch(self, number: int, model: HVPNeT, optimisation: Optimisation, features: PictureFeatures) -> Entry:
        """Trains one epoch, and scores it if it is time to."""
        options = self.config.train
        loss = optimisation.epoch(number, progress=self.progress)
        if not math.isfinite(loss):
            raise HvpnetError(f"the loss of epoch {number} is {loss}: lower train.lr or train.head_lr")
        dev = None
        if number >= options.eval_begin_epoch:
            dev = evaluate(model, self.tokenizer, self.dev.examples, features)
        f1 = "" if dev is None else f", dev F1 {dev.f1:.4f}"
        self._report(f"epoch {number} of {options.epochs}: loss {loss:.4f}{f1}")
        return {"epoch": number, "loss": loss, "dev": None if dev is None else asdict(dev)}


def _check_history(history: list[Entry], config: TrainingConfig) -> None:
    """Raises an error of any kind where these are not the entries of the run's first epochs."""
    scored = range(config.train.eval_begin_epoch, len(history) + 1)
    if [(each["epoch"], each["dev"] is not None) for each in history] != [
        (number, number in scored) for number in range(1, len(history) + 1)
    ]:
        raise ValueError("not the epochs of this run")
    for each in history:
        if each.keys() != {"epoch", "loss", "dev"} or not isinstance(each["loss"], float):
            raise ValueError("not an entry of a run")
        if each["dev"] is not None:
            _SCORES.validate_python(each["dev"])


def _best(history: list[Entry]) -> Entry:
    """The last of the epochs with the best F1 on the dev split."""
    return max((entry for entry in history if entry["dev"]), key=lambda entry: (entry["dev"]["f1"], entry["epoch"]))
