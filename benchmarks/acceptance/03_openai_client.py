"""The official `openai` client against `foveal serve`, unmodified; then schemathesis against the served /openapi.json.

python benchmarks/acceptance/03_openai_client.py --model .demo/foveal-demo
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from harness.record import write_result  # noqa: E402
from harness.server import running_server  # noqa: E402


def openai_contract(model: str) -> list[str]:
    """Names of the behaviours that were checked on this model. Exits if one fails."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--no-header", "tests/integration/test_real_server.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FOVEAL_TEST_MODEL": str(Path(model).resolve())},
    )
    if run.returncode:
        raise SystemExit(run.stdout)
    return re.findall(r"::(test_\w+) PASSED", run.stdout)


def schemathesis(model: str, examples: int) -> tuple[int, str]:
    """Exit status and the closing lines of a run that accepts no 5xx."""
    flags = (
        "--served-model-name",
        "foveal-demo",
        "--max-model-len",
        "512",
        "--request-timeout",
        "60",
        "--log-level",
        "error",
    )
    with running_server(model, *flags) as server:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{server.url}/openapi.json",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            f"--max-examples={examples}",
            "--phases=examples,fuzzing",
            "--request-timeout=120",
            "--no-color",
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        alive = server.get("/ready")[0] == 200
    print(run.stdout[-4000:])
    return run.returncode if alive else 1, "\n".join(run.stdout.strip().splitlines()[-12:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--examples", type=int, default=40, help="per operation")
    options = parser.parse_args()
    behaviours = openai_contract(options.model)
    for name in behaviours:
        print("PASS", name)
    status, summary = schemathesis(options.model, options.examples)
    path = write_result(
        "acceptance_03_openai_client",
        {"openai_client": behaviours, "schemathesis_exit": status, "schemathesis": summary},
    )
    print(f"written to {path}")
    if status:
        raise SystemExit("schemathesis found something")


if __name__ == "__main__":
    main()
