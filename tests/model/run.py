#!/usr/bin/env python3
"""Verifies the model of the protocol with spin, and that each of its mutants is refuted.

run.py --list      the names of all cases
run.py [CASE ...]  runs these, or all, and says what was searched

A case is a model with sizes, or with one rule broken. The unbroken model must be searched to the
end without an error. A mutant must fail in the way that its rule is about. Exits 0 if all of that
is so.
"""

import dataclasses
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SEARCH_DEPTH = 20_000
MEMORY_MIB = 1800
TIMEOUT_SECS = 280

ASSERTION = "assertion violated"
STUCK = "invalid end state"
CYCLE = "non-progress cycle"


@dataclasses.dataclass(frozen=True)
class Case:
    model: str
    defines: dict[str, int]
    refuted_by: tuple[str, ...] = ()  # of a mutant: which error, one of these
    finite: bool = False  # search for endless executions instead of errors

    @property
    def arguments(self) -> list[str]:
        return [f"-D{name}={value}" for name, value in self.defines.items()]


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}

    # saves.pml: three saves through two records, then each kind of accident more thoroughly.
    several = {"SAVES": 3, "DEATHS": 1, "FAULTS": 1, "ABORTS": 1, "TRAINER_DEATHS": 0}
    trainer_dies = {"SAVES": 2, "DEATHS": 1, "FAULTS": 0, "ABORTS": 1, "TRAINER_DEATHS": 1}
    two_deaths = {"SAVES": 2, "DEATHS": 2, "FAULTS": 1, "ABORTS": 0, "TRAINER_DEATHS": 0}
    small = {"SAVES": 2, "DEATHS": 1, "FAULTS": 0, "ABORTS": 1, "TRAINER_DEATHS": 0}
    found["saves.several"] = Case("saves", several)
    found["saves.trainer_dies"] = Case("saves", trainer_dies)
    found["saves.two_deaths"] = Case("saves", two_deaths)
    found["saves.every_execution_is_finite"] = Case("saves", small, finite=True)

    def mutant(model: str, name: str, sizes: dict[str, int], *refuted_by: str) -> None:
        defines = {**sizes, f"MUTANT_{name}": 1}
        found[f"{model}.mutant.{name.lower()}"] = Case(model, defines, refuted_by)

    mutant("saves", "NO_LOCK", small, ASSERTION)
    mutant("saves", "ONE_WORD", several, ASSERTION, STUCK)
    mutant("saves", "NO_FINISH", several, ASSERTION, STUCK)
    mutant("saves", "RELEASE_BEFORE_WRITTEN", several, ASSERTION)
    mutant("saves", "COMMIT_UNSEALED", several, ASSERTION)
    mutant("saves", "RENAME_BEFORE_SYNC", several, ASSERTION)
    mutant("saves", "COMMITTED_BEFORE_RENAME", several, ASSERTION)
    mutant("saves", "RENAMING_NOT_STORED", small, ASSERTION)
    mutant("saves", "RENAMING_IS_DONE_AGAIN", small, ASSERTION)
    mutant("saves", "FAILED_RENAME_NOT_STORED", two_deaths, ASSERTION)
    mutant("saves", "LOST_FILE_MADE_AGAIN", two_deaths, ASSERTION)
    mutant("saves", "CLAIM_NOT_STORED", small, ASSERTION)
    mutant("saves", "INTENT_BEFORE_BLOCK", several, ASSERTION, STUCK)
    mutant("saves", "LAST_WORD_NOT_LOADED", trainer_dies, ASSERTION)
    mutant("saves", "SHUTDOWN_LOOKED_AT_LAST", small, ASSERTION)

    # doorbell.pml
    undisturbed = {"DEATHS": 0, "TRAINER_DEATHS": 0}
    helper_dies = {"DEATHS": 1, "TRAINER_DEATHS": 0}
    trainer_dies = {"DEATHS": 0, "TRAINER_DEATHS": 1}
    found["doorbell.helper_dies"] = Case("doorbell", helper_dies)
    found["doorbell.trainer_dies"] = Case("doorbell", trainer_dies)
    for waiter in "DATA", "SPACE", "RESULT":
        mutant("doorbell", f"NO_SECOND_LOOK_{waiter}", undisturbed, STUCK)
        mutant("doorbell", f"{waiter}_FLAG_RELEASE", undisturbed, STUCK)
    for word in "PUBLISH", "TAIL", "INTENT", "OUTCOME", "FINISH", "SHUTDOWN":
        mutant("doorbell", f"{word}_RELEASE", undisturbed, STUCK)
    mutant("doorbell", "LOOK_BEFORE_STORE", undisturbed, STUCK)
    mutant("doorbell", "BELL_CLEARED_AFTER_LOOK", undisturbed, STUCK)
    mutant("doorbell", "NO_BELLS_AT_START", helper_dies, STUCK)
    mutant("doorbell", "HELPER_PIDFD_NOT_POLLED", helper_dies, STUCK)
    mutant("doorbell", "TRAINER_PIDFD_NOT_POLLED", trainer_dies, STUCK)
    return found


def unknown_mutants() -> set[str]:
    """Mutants that a model knows and no case runs, or the reverse."""
    written = set()
    for model in HERE.glob("*.pml"):
        words = re.findall(r"^ *#ifn?def (MUTANT_\w+)", model.read_text(), re.MULTILINE)
        written.update((model.stem, word) for word in words)
    run = {(c.model, d) for c in cases().values() for d in c.defines if d.startswith("MUTANT_")}
    return {f"{model}.pml: {mutant}" for model, mutant in written ^ run}


def call(command: list[str], directory: str) -> str:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_SECS, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def search(case: Case) -> str:
    """What spin's verifier says of it."""
    with tempfile.TemporaryDirectory(prefix="ckptring-model-") as directory:
        call(["spin", "-a", *case.arguments, str(HERE / f"{case.model}.pml")], directory)
        # Most mutants are refuted before the compiler would have optimised them.
        speed = "-O0" if case.refuted_by else "-O1"
        kind = ["-DNP"] if case.finite else ["-DSAFETY"]
        call(
            ["gcc", "-w", speed, *kind, "-DNOFAIR", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}"]
            + ["-o", "pan", "pan.c"],
            directory,
        )
        loop = ["-l"] if case.finite else []
        return call(["./pan", *loop, "-n", "-w22", f"-m{SEARCH_DEPTH}"], directory)


def complaint(case: Case, output: str) -> str:
    """What is wrong with the search; empty if it ended as it must."""
    errors = re.search(r"errors: (\d+)", output)
    if not errors:
        return "the verifier did not end in order"
    if case.refuted_by:
        if errors[1] == "0":
            return "the mutant was not refuted"
        if not any(error in output for error in case.refuted_by):
            return f"refuted for another reason than: {' or '.join(case.refuted_by)}"
        return ""
    if errors[1] != "0":
        return "the model has an error"
    for sign in "Search not completed", "max search depth too small", "out of memory", "truncated":
        if sign in output:
            return f"the search was not exhaustive: {sign}"
    return ""


def run(name: str, case: Case) -> bool:
    began = time.monotonic()
    output = search(case)
    seconds = time.monotonic() - began
    wrong = complaint(case, output)
    states = re.search(r"(\d+) states, stored", output)
    memory = re.search(r"([\d.]+)\ttotal actual memory", output)
    how = re.search(r"pan:1: (.*)", output)
    print(
        f"{name}: {states[1] if states else '?'} states, {memory[1] if memory else '?'} MiB, "
        f"{seconds:.1f} s" + (f"; {how[1]}" if how else ""),
        flush=True,
    )
    if wrong:
        print(f"{name}: WRONG: {wrong}\n{output}", flush=True)
    return not wrong


def main() -> int:
    known = cases()
    if sys.argv[1:] == ["--list"]:
        print("\n".join(known))
        return 0
    if unknown := unknown_mutants():
        print("not run, or not in the model:", ", ".join(sorted(unknown)))
        return 1
    names = sys.argv[1:] or list(known)
    if wrong := [name for name in names if name not in known]:
        print("no such case:", ", ".join(wrong))
        return 64
    return 0 if all([run(name, known[name]) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
