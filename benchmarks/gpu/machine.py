"""What the machine is: its GPU, versions, and the rates that everything else is measured by."""

import argparse
from pathlib import Path
from typing import Any

import torch
from keeping import write_json

from hvpnet.bench.machine import describe_machine


def rates() -> dict[str, float]:
    """A bf16 matrix product of 8192 on random data, in TFLOP/s, and a copy on the device in GB/s read and written."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    copied = torch.empty(2**31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(copied)
    return {
        "bf16_tflops": round(2 * 8192**3 / seconds(lambda: a @ b) / 1e12, 1),
        "copy_gb_s": round(2 * copied.numel() / seconds(lambda: target.copy_(copied)) / 1e9, 1),
    }


def seconds(call: Any, rounds: int = 10) -> float:
    """The median time of a call on the device, after three that are not counted."""
    taken = []
    for _ in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1000)
    return sorted(taken[3:])[rounds // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    write_json(options.out, {**describe_machine(), **({} if options.dry_run else rates())})


if __name__ == "__main__":
    main()
