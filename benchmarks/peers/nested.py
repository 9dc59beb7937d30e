"""States: nested dicts of tensors and other things."""

import torch


def bytes_of(value):
    if isinstance(value, dict):
        return sum(bytes_of(inner) for inner in value.values())
    return value.nbytes if isinstance(value, torch.Tensor) else 0


def each_tensor(state, make):
    """Nested dicts of the same structure with `make(tensor)` in every tensor's place."""
    made = {}
    for key, value in state.items():
        if isinstance(value, dict):
            value = each_tensor(value, make)
        elif isinstance(value, torch.Tensor):
            value = make(value)
        made[key] = value
    return made
