"""GPTQ and AWQ beside llm-compressor's: perplexity at most 0.5 % above theirs, time not longer.

    python benchmarks/acceptance/compress_02_llm_compressor.py --model .demo/foveal-demo --peer-python PEER/bin/python --work W

How to make the peer's environment is in benchmarks/peers/README.md. Time is the processor's: other work on the machine
does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys

from harness_path import ROOT


def main() -> None:
    script = ROOT / "benchmarks" / "peers" / "compare_llm_compressor.py"
    subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=True)
    figures = json.loads((ROOT / "benchmarks" / "results" / "peer_llm_compressor.json").read_text())["figures"]
    failed = False
    for method, found in figures["methods"].items():
        ratios = found["ours_to_theirs"]
        for name, ratio, most in (
            ("perplexity", ratios["perplexity_ratio"], 1.005),
            ("processor time", ratios["processor_seconds_ratio"], 1.0),
        ):
            failed |= ratio > most
            print("PASS" if ratio <= most else "FAIL", f"{method}: {name} is {ratio:.4f} of theirs (at most {most})")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
