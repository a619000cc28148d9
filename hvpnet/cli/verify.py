"""Hold a bundle's graphs against the checkpoints they came from, on values and on decisions, over tweets if given."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvpnet.cli.grounder_options import grounder_tokenizer_option
from hvpnet.cli.options import PictureOptions, ShownOptions, argument, option, progress, show
from hvpnet.data.examples import SplitName
from hvpnet.errors import DataError
from hvpnet.evaluation.scoring import check_split
from hvpnet.files import require_grounder
from hvpnet_runtime.bundle import QUANTISED, Bundle
from hvpnet_runtime.preprocessing.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from hvpnet_export.grounding_parity import GroundingReport
    from hvpnet_export.parity import ParityReport


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions, ShownOptions):
    """What `hvpnet verify` was asked to do."""

    bundle: Path = argument()
    checkpoint: Path = option("what the bundle was exported from", required=True)
    grounder: Path | None = option("what the bundle's grounder was exported from (default: it is not compared)")
    grounder_tokenizer: Path | None = grounder_tokenizer_option()
    data: Path | None = option("compare on the tweets of a data set instead of on random ones")
    split: SplitName = option("of the data (default test)", default="test")


def run(options: Options) -> int:
    """Compare every precision; exit code 1 if one fails, which is the last to be compared."""
    done: dict[str, dict[str, Any]] = {}
    for kind, precision, report in _reports(options):
        done.setdefault(kind, {})[precision] = report.to_dict()
        if not options.json:
            show({kind: precision, **report.to_dict()}, as_json=False)
        if not report.passed:
            break
    if options.json:
        show(done, as_json=True)
    report.require()
    return 0


def _reports(options: Options) -> Iterator[tuple[str, str, "ParityReport | GroundingReport"]]:
    """What was compared, of the graphs (`precision`) and of the grounder, each with its precision."""
    if options.grounder:
        require_grounder(options.grounder, options.grounder_tokenizer)
    progress("checking the bundle's files")
    bundle = Bundle.load(options.bundle)
    spec = bundle.grounder if options.grounder else None  # an error before PyTorch is loaded, if it has none
    quantised = [name for name in bundle.manifest.precision if name in QUANTISED]
    if quantised and options.data is None:
        raise DataError(
            f"the bundle has {' and '.join(quantised)} graphs, which are compared on tweets, not at random: give --data"
        )
    progress("loading PyTorch and the checkpoint")
    from hvpnet.data import load_split
    from hvpnet.modeling.checkpoint import load_checkpoint
    from hvpnet.modeling.grounding import load_grounder
    from hvpnet.modeling.infer_config import Hints
    from hvpnet_export.grounder import compare_graphs
    from hvpnet_export.parity import compare, compare_decoder
    from hvpnet_export.parity_cases import example_cases

    model = load_checkpoint(options.checkpoint, Hints.of_bundle(bundle.manifest))
    if bundle.task == "ner":
        compare_decoder(model, bundle)
    tokenizer = load_tokenizer(bundle)
    split = None
    if options.data is not None:
        split = load_split(
            options.data, options.split, options.on_bad_image, labels=bundle.labels, pictures=bundle.pictures
        )
        progress(f"read {split.summary}")
        check_split(split, bundle.task, with_pictures=bundle.sizes.pictures > 0)
    for precision in bundle.manifest.precision:
        progress(f"comparing the {precision} graphs with the eager model")
        cases = example_cases(model.config, tokenizer, split.examples) if split else None
        yield "precision", precision, compare(model, bundle, precision, cases)
    if options.grounder and spec:
        progress("loading the grounder")
        grounder = load_grounder(options.grounder, options.grounder_tokenizer)
        for precision in spec.precision:
            progress(f"comparing the {precision} grounder with the eager model")
            yield "grounder", precision, compare_graphs(grounder, bundle, spec, precision)
