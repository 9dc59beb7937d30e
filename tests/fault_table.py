#!/usr/bin/env python3
"""Sums up the fault matrix from the log of a test run, as the README's table.

usage: tests/fault_table.py build/release/Testing/Temporary/LastTest.log [--into README.md]

Each row that a test counts (tests/support/fault_row.h) belongs to one line of the table; a row that
belongs to none, and a line without a row, are errors. With --into the table of that file is
replaced.
"""
import argparse
import pathlib
import re
import sys

# Line of the table: the first words of its rows.
LINES = {
    "checkpoint process killed before and after each of its system calls, with one and with two "
    "saves in the ring": ["killed at every system call"],
    "the same at pairs of points: its successor killed as well": ["killed at pairs of"],
    "checkpoint process killed at random instants": ["killed at random instants"],
    "killed between clone and exec, while starting, after a call that failed":
        ["killed between clone", "killed while starting", "killed after a failed call"],
    "killed with writes in flight": ["killed with up to", "stale writes"],
    "checkpoint process stopped, or hung in a system call": ["stopped", "hung"],
    "helper missing, not executable, of another version, ending at once": ["helper "],
    "trainer killed before and after sealing, during the commit, between two saves":
        ["trainer killed before", "trainer killed after", "trainer killed during",
         "trainer killed between"],
    "trainer killed at random instants": ["trainer killed at a random"],
    "small trainings (a classifier, a GAN, a language model) killed at random instants; lost, torn: "
    "steps whose loss is missing, or another one": ["a small training"],
    "both killed at random instants": ["both processes killed"],
    "trainer ends by exit, return, exception or abort, without `close()`": ["trainer ends"],
    "signals to the process group, SIGTERM with a handler that saves, trainer as PID 1":
        ["signal"],
    "trainer that forks children without exec": ["trainer that forked"],
    "the old process still commits when the restarted trainer loads or saves":
        ["still committing"],
    "every file call of the checkpoint process fails, with every error, once and from then on":
        ["a call fails", "io_uring is refused", "RLIMIT_FSIZE"],
    "the same through the file seam: full, read-only, broken and vanishing disks": ["disk: "],
    "a real disk that is full to any degree": ["a real disk"],
    "power cut: states that a disk may be left in": ["power loss"],
    "damaged files and hostile pickles: an error with a name, or what was not damaged":
        ["damaged: "],
}
ROW = re.compile(r"fault row \| (.*?) \| cases (\d+) \| lost (\d+) \| torn (\d+)$", re.MULTILINE)
HEAD = "| fault | cases | lost | torn |\n|---|---|---|---|\n"


def line_of(row):
    for line, beginnings in LINES.items():
        if row.startswith(tuple(beginnings)):
            return line
    sys.exit(f"no line of the table for the row: {row}")


def table(log):
    sums = {line: [0, 0, 0] for line in LINES}
    for row, *counts in ROW.findall(log):
        line = line_of(row)
        sums[line] = [total + int(count) for total, count in zip(sums[line], counts)]
    empty = [line for line, (cases, _, _) in sums.items() if cases == 0]
    if empty:
        sys.exit("nothing was tried for: " + "; ".join(empty))
    return HEAD + "".join(f"| {line} | {cases:,} | {lost} | {torn} |\n"
                          for line, (cases, lost, torn) in sums.items())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=pathlib.Path)
    parser.add_argument("--into", type=pathlib.Path)
    arguments = parser.parse_args()
    new = table(arguments.log.read_text(errors="replace"))
    if arguments.into is None:
        print(new, end="")
        return
    text = arguments.into.read_text()
    begin = text.index(HEAD)
    end = text.index("\n\n", begin) + 1
    arguments.into.write_text(text[:begin] + new + text[end:])


main()
