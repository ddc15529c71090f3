"""`make demo`: a sandbox of the five vendors, and real game telemetry relayed to it by the `playrelay` command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sandbox.server import Running

ROOT = Path(__file__).parent.parent
EVENTS = ROOT / "templates" / "demo" / "aws_game_analytics.ndjson"


def demo(folder: Path) -> int:
    """Relays the sample to a sandbox; what is written goes to `folder`. Returns the command's exit code, or 1
    when the sandbox found fault with what it was sent, 2 when the sample is not there."""
    if not EVENTS.is_file():
        print(
            f"the demo's sample is not there: {EVENTS}. It comes with a checkout, not with the installed package: "
            "run `make demo` in a checkout, or `playrelay sandbox` and your own files.",
            file=sys.stderr,
        )
        return 2
    folder.mkdir(exist_ok=True)
    relay, report, letters = folder / "relay.yaml", folder / "report.json", folder / "dead-letters"
    command = [sys.executable, "-m", "pipelines.cli"]
    with Running() as sandbox:
        print(f"sandbox of the five vendors at {sandbox.url}", flush=True)
        made = ["init", "--preset", "aws-game-analytics", "--sandbox", sandbox.url, "--output", str(relay), "--force"]
        subprocess.run([*command, *made], check=True)  # noqa: S603  # our own command
        run = ["run", str(relay), "--input", str(EVENTS), "--report", str(report), "--dead-letters", str(letters)]
        print("\n$ playrelay " + " ".join(run) + "\n", flush=True)
        code = subprocess.run([*command, *run], check=False).returncode  # noqa: S603
        received = sandbox.received()["vendors"]
        print("\nwhat the sandbox's vendors say they took:")
        for vendor, view in received.items():
            taken = {name: model["accepted"] for name, model in sorted(view["models"].items()) if model["accepted"]}
            models = ", ".join(f"{name} {number:,}" for name, number in taken.items())
            print(f"  {vendor:<10} {view['requests']:>6,} requests  {view['accepted']:>6,} items: {models}")
        violations = sandbox.violations()
    for violation in violations:
        print(f"VIOLATION {violation}")
    print(f"\nviolations of the vendors' documents: {len(violations)}; report: {report}")
    return code or (1 if violations else 0)


if __name__ == "__main__":
    sys.exit(demo(Path("demo")))
