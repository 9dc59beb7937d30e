"""Puts the tests and the benchmark of one run of tools/gpu into one table and one JSON file.

Usage: gpu_report.py TESTS.xml BENCHMARK.json OUTPUT.json
"""

import json
import sys
import xml.etree.ElementTree as xml
from pathlib import Path


def tests_of(path):
    """What became of each test, in CTest's JUnit file."""
    found = {}
    for case in xml.parse(path).getroot().iter("testcase"):
        status = case.get("status")
        skipped = case.find("skipped") is not None
        found[case.get("name")] = ("skipped" if skipped or status in ("notrun", "disabled") else
                                   "passed" if status == "run" else "failed")
    return found


def rows(tests, benchmark):
    counts = {outcome: list(tests.values()).count(outcome)
              for outcome in ("passed", "failed", "skipped")}
    yield "tests", ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    for name, outcome in tests.items():
        if outcome != "passed":
            yield f"  {name}", outcome
    if benchmark is None:
        yield "benchmark", "failed"
        return
    if "skipped" in benchmark:
        yield "benchmark", f"skipped: {benchmark['skipped']}"
        return
    for series in benchmark["series"].values():
        yield (series["label"], f"{series['median']:.4g} {series['unit']} "
               f"({series['lower']:.4g} .. {series['upper']:.4g})")
    for goal in benchmark["goals"]:
        limit = (f"at most {goal['at_most']:g}" if "at_most" in goal
                 else f"at least {goal['at_least']:g}")
        yield (f"goal: {goal['label']}, {limit} {goal['unit']}".rstrip(),
               f"{goal['median']:.4g}, {'reached' if goal['reached'] else 'MISSED'}")
    for note in benchmark["notes"]:
        yield "note", note


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.strip().splitlines()[-1])
    tests = tests_of(sys.argv[1])
    benchmark_file = Path(sys.argv[2])
    benchmark = json.loads(benchmark_file.read_text()) if benchmark_file.exists() else None
    table = list(rows(tests, benchmark))
    width = max(len(name) for name, _ in table)
    for name, value in table:
        print(f"  {name:<{width}}  {value}")
    Path(sys.argv[3]).write_text(json.dumps({"tests": tests, "benchmark": benchmark}, indent=2) + "\n")


if __name__ == "__main__":
    main()
