"""All that is to be known of a GPU, in one command: what it is, whether answers are right, and how fast they are.

    benchmarks/gpu/run.sh OUT

Each step is a process of its own with a time limit. What it found is written to OUT as soon as it is known; a step that
fails is noted with its reason, and the others go on.
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from candidates import CANDIDATES
from fire import REQUESTS
from keeping import Results
from models import find_golden, model_names

Step = tuple[list[str], int]
"""A command, and the limit of its seconds."""

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def stages(options: argparse.Namespace) -> list[dict[str, Step]]:
    """The steps by name, those of a stage at the same time; what is timed has the machine to itself."""
    work, dry = options.out / "work", ["--dry-run"] if options.dry_run else []

    def script(name: str, *arguments: object) -> list[str]:
        return [sys.executable, "-P", str(HERE / f"{name}.py"), *map(str, arguments), *dry]

    golden = ["--golden", str(options.golden)] if options.golden else []
    tests = [sys.executable, "-m", "pytest", "-n0", "-m", "gpu", "-rs", *gpu_tests()]
    fires = [  # one after the other, for each looks at the memory of the whole device
        {f"fire on {name}": (script("fire", work, options.out / f"fire-{number}.json", name), 150)}
        for number, name in enumerate(REQUESTS)
    ]
    correctness = script("correctness", work, options.out / "correctness.json", *golden)
    checks: dict[str, Step] = {"correctness": (correctness, 150)}
    if not options.dry_run:  # the suite runs them against the fake device anyway
        checks["tests"] = (tests, 150)
    tables = [
        {f"table of {name}": (script("table", work, options.out / f"table-{number:02}.json", name), 100)}
        for number, name in enumerate(CANDIDATES)
    ]
    models = {"models": (script("models", work, *golden), 300)}
    return [models, {"machine": (script("machine", options.out / "machine.json"), 60)}, *fires, checks, *tables]


def gpu_tests() -> list[str]:
    """The modules with tests for a GPU; others import what need not be installed beside one."""
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path) for path in modules if "pytest.mark.gpu" in path.read_text("utf-8")]


def run_step(command: list[str], limit: float | None, log: Path) -> str | None:
    """Run one step; why it failed, or None. What it printed stands in its log."""
    with log.open("w", encoding="utf-8") as output:
        try:
            done = subprocess.run(
                command, check=False, stdout=output, stderr=subprocess.STDOUT, timeout=limit, cwd=ROOT
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {limit:.0f} s"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with {done.returncode} and said nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the results, which must not exist or be empty")
    parser.add_argument("--dry-run", action="store_true", help="walk all of it with a fake device and tiny models")
    parser.add_argument("--golden", type=Path, default=find_golden(), help="golden cases of the published code")
    parser.add_argument("--seconds", type=int, default=600, help="when to be done (default 600)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty")
    (options.out / "work").mkdir()
    results, end = Results(options.out), time.perf_counter() + (3600 if options.dry_run else options.seconds)
    results.note(
        "setting", {"dry_run": options.dry_run, "models": model_names(options.golden, dry_run=options.dry_run)}
    )

    def run(step: tuple[str, Step]) -> str | None:
        name, (command, limit) = step
        left, start = end - time.perf_counter(), time.perf_counter()
        most = None if options.dry_run else min(limit, left)  # without a GPU nothing is in a hurry
        log = options.out / f"{name.replace(' ', '-')}.log"
        failed = "no time was left" if left < 5 else run_step(command, most, log)
        results.step(name, time.perf_counter() - start, failed)
        print(f"{name}: {failed or 'done'} ({time.perf_counter() - start:.0f} s)", flush=True)
        return failed

    for stage in stages(options):
        with ThreadPoolExecutor(1 if options.dry_run else len(stage)) as pool:
            failed = list(pool.map(run, stage.items()))
        if "models" in stage and failed[0]:
            return 1  # nothing can be asked of models that are not there
    return 0


if __name__ == "__main__":
    sys.exit(main())
