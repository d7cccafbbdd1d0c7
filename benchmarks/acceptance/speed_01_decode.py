"""Decode beside every peer: points 1 (alone) and 2 (16 at once) of the list of speed.

    python benchmarks/acceptance/speed_01_decode.py                                    # judge results/peers.json
    python benchmarks/acceptance/speed_01_decode.py --model DEMO_VLM --environments E  # measure first (an hour)

More flags go to `foveal bench peers`, for example --workload 64x128+128.
"""

from __future__ import annotations

import subprocess
import sys

from harness_path import ROOT

from harness.peer_figures import PeerReport, read_reports  # isort: skip

SMALL, LARGE = "smollm2-135m", "random-0.4b"
WANTED = {(SMALL, 1): 1.5, (LARGE, 1): 1.25, (SMALL, 16): 1.5, (LARGE, 16): 1.5}
"""Our fastest over the fastest peer, whatever the bits."""
EQUAL_BITS = (4, 8, 16)
ROOFLINE = 0.8
FIGURE = "decode_tok_s"


def judge(report: PeerReport) -> list[tuple[bool, str]]:
    checks = []
    for concurrency in (1, 16, 64):
        workload = report.workload(concurrency)
        if workload is None:
            if concurrency < 64:
                checks.append((False, f"{report.model}, {concurrency} at once: not measured"))
            continue
        wanted = WANTED.get((report.model, concurrency))
        duel = report.duel_of_the_best(workload, FIGURE)
        if duel is None:
            checks.append((False, f"{report.model}, {workload}: nobody to compare with"))
            continue
        if wanted is None:
            print(f"      {report.model}, {workload}, for the record: {duel}")
            continue
        passed = duel.ratio >= wanted and not duel.quality.startswith("worse")
        checks.append((passed, f"{report.model}, {workload}, any bits, at least {wanted:g}x: {duel}"))
        if concurrency == 1:
            for bits in EQUAL_BITS:
                duels = report.duels_at_equal_bits(workload, FIGURE, bits)
                if not duels and report.engines(workload, ours=False, bits=bits):
                    checks.append((False, f"{report.model}, {workload}, {bits} bits: we have no such mode in this run"))
                checks += [
                    (d.ratio > 1 and not d.quality.startswith("worse"), f"{report.model}, {workload}, {bits} bits: {d}")
                    for d in duels
                ]
    if report.model == LARGE and (workload := report.workload(1)):
        shares = {
            name: share
            for name in report.engines(workload, ours=True, bits=8)
            if (share := report.roofline(name, workload)) is not None
        }
        checks.append(
            (any(s >= ROOFLINE for s in shares.values()), f"{LARGE}, INT8, {ROOFLINE:.0%} of roofline: {shares}")
        )
    return checks


def main() -> None:
    if len(sys.argv) > 1:
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "peers_table.py"), *sys.argv[1:]], check=True)
    checks = []
    for report in read_reports().values():
        for name, error in report.failures.items():
            print(f"      {report.model}, {name} does not run here: {error.strip().splitlines()[-1]}")
        checks.append((report.rounds >= 5, f"{report.model}: medians of {report.rounds} rounds, at least 5"))
        checks += judge(report)
    for passed, text in checks:
        print("PASS" if passed else "FAIL", text)
    if not all(passed for passed, _ in checks):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
