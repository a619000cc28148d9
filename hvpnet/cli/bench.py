"""Time a bundle against its checkpoint in PyTorch, on this machine, and score both; writes results, report, figures."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from hvpnet.cli.options import PictureOptions, ShownOptions, argument, device_option, option, progress, show
from hvpnet.data.examples import SplitName
from hvpnet.errors import ConfigError
from hvpnet_runtime.backends import BACKENDS, check_device
from hvpnet_runtime.backends.cuda import visible_gpus
from hvpnet_runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions, ShownOptions):
    """What `hvpnet bench` was asked to do.

    Raises:
        ConfigError: the seconds are negative, or no number.
        InputError: a GPU is chosen for a backend that runs on the CPU.
    """

    bundle: Path = argument()
    checkpoint: Path = option("what the bundle was exported from", required=True)
    out: Path = option("a folder for results.json, report.md and figures", required=True)
    backend: list[str] | None = option(
        "time only this one; may be given again", action="append", choices=tuple(BACKENDS)
    )
    device: int | None = device_option()
    data: Path | None = option("also score on Twitter-2015/2017, MNRE or picture-tweets")
    split: SplitName = option("of the data (default test)", default="test")
    seconds: float = option(
        "for all timing, once every candidate is loaded; what does not fit is left out and named (default 600)",
        default=600.0,
    )

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < float("inf"):
            raise ConfigError(f"--seconds must be a number from 0, not {self.seconds}")
        for name in self.backend or ():
            check_device(name, self.device)


def run(options: Options) -> int:
    """Measure, write, and show every candidate's speed-up."""
    import_module("matplotlib")  # an error before minutes of timing
    options.out.mkdir(parents=True, exist_ok=True)
    if options.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _one_gpu(options.device)  # for every candidate's process, and PyTorch here
    progress("loading PyTorch")
    from hvpnet.bench.report import write_report
    from hvpnet.bench.run import Data, headline, run_bench

    data = Data(options.data, options.split, options.on_bad_image) if options.data else None
    backends = options.backend or tuple(BACKENDS)
    keep = partial(write_report, out=options.out)
    try:
        results = run_bench(options.bundle, options.checkpoint, backends, options.seconds, data, progress, keep)
    except KeyboardInterrupt:
        print(f"hvpnet: what was measured until now is in {options.out / 'report.md'}", file=sys.stderr)
        raise
    candidates = [{**asdict(each.candidate), "times_eager_fp32": each.speedup.median} for each in headline(results)]
    show({"report": str(options.out / "report.md"), "candidates": candidates}, as_json=options.json)
    return 0


def _one_gpu(number: int) -> str:
    """What hides all GPUs from a process but one. They are counted in another, for CUDA reads the variable once.

    Raises:
        InputError: there are fewer.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        gpus = pool.submit(visible_gpus).result()
    if number >= len(gpus):
        raise InputError(f"there is no GPU {number}: hvpnet can use {len(gpus)} here, numbered from 0")
    return gpus[number]
