"""A model and its optimizer change hands in the middle of the training."""

import pytest
import torch

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95), weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.02, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
}


class Run:
    def __init__(self, kind):
        torch.manual_seed(1)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.Tanh(), torch.nn.Linear(12, 3)
        )
        self.optimizer = OPTIMIZERS[kind](self.model.parameters())
        self.input = torch.randn(16, 6)

    def train(self, steps):
        losses = []
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = self.model(self.input).pow(2).mean()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "input": self.input,
        }

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_in_cpp_and_comes_back(peer, folder, kind):
    run = Run(kind)
    run.train(5)
    torch.save(run.state(), folder / "python.pt")
    expected = run.train(5)
    answer = peer.ask(
        "train", **{"from": folder / "python.pt"}, to=folder / "cpp", optimizer=kind, steps=5
    )
    # The same formulas in another order of operations: equal up to rounding.
    assert answer["losses"] == pytest.approx(expected, rel=1e-4)

    state = torch.load(folder / "cpp" / "checkpoint_0.pt", weights_only=True)
    back = Run(kind)
    back.load(state)
    assert back.train(5) == pytest.approx(run.train(5), rel=1e-4)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_state_that_only_passes_through_is_the_same(peer, folder, kind):
    run = Run(kind)
    run.train(3)
    torch.save(run.state(), folder / "python.pt")
    peer.ask("train", **{"from": folder / "python.pt"}, to=folder / "cpp", optimizer=kind, steps=0)
    loaded = torch.load(folder / "cpp" / "checkpoint_0.pt", weights_only=True)
    expected = run.state()
    assert list(loaded["model"]) == list(expected["model"])
    for key, value in expected["model"].items():
        assert torch.equal(loaded["model"][key], value), key
    assert loaded["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    assert list(loaded["optimizer"]["state"]) == list(expected["optimizer"]["state"])
    for index, state in expected["optimizer"]["state"].items():
        found = loaded["optimizer"]["state"][index]
        assert list(found) == list(state)
        for key, value in state.items():
            assert found[key].dtype == value.dtype and torch.equal(found[key], value), (index, key)
    other = Run(kind)
    other.load(loaded)
    assert other.train(5) == run.train(5)  # in Python again: exactly


def test_a_learning_rate_that_is_a_tensor_is_a_number_here(peer, folder):
    run = Run("adamw")
    run.optimizer = torch.optim.AdamW(run.model.parameters(), lr=torch.tensor(0.02))
    run.train(3)
    torch.save(run.state(), folder / "python.pt")
    expected = run.train(5)
    answer = peer.ask(
        "train", **{"from": folder / "python.pt"}, to=folder / "cpp", optimizer="adamw", steps=5
    )
    assert answer["losses"] == pytest.approx(expected, rel=1e-4)
    loaded = torch.load(folder / "cpp" / "checkpoint_0.pt", weights_only=True)
    assert loaded["optimizer"]["param_groups"][0]["lr"] == torch.tensor(0.02).item()
