"""How a peer is told what to do: lines of JSON in, an answer of one line to each."""

import json
import os
import sys
import traceback
import warnings
from pathlib import Path


def serve(answer_to):
    """Answers each command by `answer_to(command)`, or by {"error": TEXT} where that raises, until
    the input ends. stdin and stdout are kept from the processes that are started meanwhile, and
    from whoever prints."""
    commands = os.fdopen(os.dup(0))
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    for line in commands:
        try:
            answer = answer_to(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
        line = None  # may be long, and is no part of what a save needs


def main(ways, make, *others):
    """The program of a peer whose command line is a name in `ways`, and the `others`: serves by
    what `make` makes of these arguments, and closes it at the end of the input."""
    program, *arguments = sys.argv
    if len(arguments) != 1 + len(others) or arguments[0] not in ways:
        sys.exit(" ".join(["usage:", Path(program).name, "|".join(ways), *others]))
    peer = make(*arguments)
    serve(peer.answer_to)
    peer.close()
