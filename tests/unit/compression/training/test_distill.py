"""The distillation loss against float64 formulas, and a student that learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveal.compression.training.distill import CachedStates, CachedTopK, DistillConfig, LiveTeacher, distill
from foveal.compression.training.distillation_loss import (
    DistillationLoss,
    SoftTargets,
    hidden_state_loss,
    soft_target_loss,
)
from foveal.core.errors import ConfigurationError
from support.counting_llama import counting_batches, mean_loss, tiny_llama, trained_llama


def softmax(z: torch.Tensor) -> torch.Tensor:
    return (z - z.max(-1, keepdim=True).values).exp() / (z - z.max(-1, keepdim=True).values).exp().sum(-1, keepdim=True)


@given(st.integers(0, 1000), st.floats(1, 10), st.floats(0, 2))
def test_the_gradient_is_tau_times_the_difference_of_probabilities_plus_alpha(
    seed: int, tau: float, alpha: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(0, 7, (3,), generator=generator)
    student.requires_grad_(True)
    DistillationLoss(tau, alpha)(student, SoftTargets.of_logits(teacher, tau), labels).backward()
    z = student.detach()
    soft = tau * (softmax(z / tau) - softmax(teacher / tau)) / 3
    hard = alpha * (softmax(z) - torch.nn.functional.one_hot(labels, 7)) / 3
    torch.testing.assert_close(student.grad, soft + hard, atol=1e-5, rtol=1e-4)


@given(st.integers(0, 1000), st.sampled_from([1.0, 2.0, 5.0]))
def test_the_value_is_tau_squared_times_the_divergence(seed: int, tau: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64) * 2
    p, q = softmax(teacher / tau), softmax(student / tau)
    expected = tau**2 * (p * (p / q).log()).sum(-1).mean()
    found = soft_target_loss(student, SoftTargets.of_logits(teacher, tau))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_largest_parts_never_overstate_the_divergence_and_all_of_them_are_exact(seed: int, top: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 4, 9, generator=generator)
    full = soft_target_loss(student, SoftTargets.of_logits(teacher, 2.0))
    part = soft_target_loss(student, SoftTargets.of_logits(teacher, 2.0, top))
    assert part <= full + 1e-4
    if top == 9:
        torch.testing.assert_close(part, full)


def test_weights_choose_the_positions_that_count() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5)
    weighted = soft_target_loss(student, SoftTargets.of_logits(teacher, 2.0), torch.tensor([0.0, 2.0, 0.0]))
    torch.testing.assert_close(weighted, soft_target_loss(student[1:2], SoftTargets.of_logits(teacher[1:2], 2.0)))


def test_the_hidden_state_loss_is_relative_to_the_teachers_size() -> None:
    teacher = torch.full((2, 4), 10.0)
    assert float(hidden_state_loss(torch.zeros(2, 4), teacher)) == pytest.approx(1.0)
    assert float(hidden_state_loss(teacher, teacher)) == 0.0


@pytest.mark.parametrize("source", ["live", "states", "top-k"])
def test_a_student_learns_its_teacher(source: str) -> None:
    teacher = trained_llama()
    student = tiny_llama(seed=1, num_hidden_layers=1, intermediate_size=32)
    batches, held_out = counting_batches(20, seed=2), counting_batches(4, seed=3)
    for batch in batches:
        batch["labels"] = batch["labels"].clone()
        batch["labels"][:, :3] = -100  # the step is not known yet
    loss = DistillationLoss(2.0, alpha=0.1, beta=0.0 if source == "top-k" else 0.1)
    teachers = {
        "live": lambda: LiveTeacher(teacher),
        "states": lambda: CachedStates.record(teacher, batches),
        "top-k": lambda: CachedTopK.record(teacher, batches, 2.0, top=8),
    }
    before = mean_loss(student, held_out)
    history = distill(student, teachers[source](), batches, DistillConfig(steps=120, rate=5e-3, loss=loss))
    assert history[-1] < history[0] / 3
    assert mean_loss(student, held_out) < before / 2


def test_stored_states_teach_what_the_live_teacher_teaches() -> None:
    teacher, (batch,) = trained_llama(steps=20), counting_batches(1, seed=4)
    live = LiveTeacher(teacher).view(0, batch, 2.0)
    stored = CachedStates.record(teacher, [batch]).view(0, batch, 2.0)
    torch.testing.assert_close(stored.targets.log_probs, live.targets.log_probs, atol=1e-2, rtol=1e-2)
    assert live.targets.log_probs.shape == (4 * 11, 40)


def test_batches_without_labels_are_refused() -> None:
    (batch,) = counting_batches(1)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with pytest.raises(ConfigurationError, match="without a single label"):
        distill(tiny_llama(), LiveTeacher(tiny_llama()), [batch], DistillConfig(steps=1))


@pytest.mark.parametrize("settings", [{"temperature": 0.5}, {"temperature": 11.0}, {"alpha": -1.0}])
def test_losses_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        DistillationLoss(**settings)
