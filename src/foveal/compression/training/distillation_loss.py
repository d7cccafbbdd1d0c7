"""What a student pays for differing from its teacher: tau^2 KL + alpha CE, and the distance of hidden states.

Source: Hinton, Vinyals, Dean (2015). The factor tau^2 keeps the gradient's size as the temperature changes: the gradient
of tau^2 KL by a student logit is tau (softmax(z / tau) - softmax(t / tau)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from foveal.core.errors import ConfigurationError

__all__ = ["DistillationLoss", "SoftTargets", "hidden_state_loss", "soft_target_loss"]


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's distribution at one temperature over n positions, whole or its k largest parts.

    log_probs [n, k] natural logarithms; tokens [n, k], or None where k is the vocabulary; the rest of the mass is one bin.
    """

    log_probs: torch.Tensor
    temperature: float
    tokens: torch.Tensor | None = None

    @classmethod
    def of_logits(cls, logits: torch.Tensor, temperature: float, top: int | None = None) -> SoftTargets:
        """From logits [n, vocabulary]. `top` keeps the largest ones, which is enough to store: 64 of 49,152 in fp16
        and int32 are 384 bytes a position."""
        log_probs = (logits.float() / temperature).log_softmax(-1)
        if top is None or top >= logits.shape[-1]:
            return cls(log_probs, temperature)
        kept = log_probs.topk(top, dim=-1)
        return cls(kept.values, temperature, kept.indices)


@dataclass(frozen=True)
class DistillationLoss:
    """tau^2 KL(teacher || student) + alpha CE(labels) + beta hidden-state distance.

    Large temperatures show the student what the teacher thinks of unlikely words; 1 is plain KL, which fits best what
    speculative decoding accepts. Raises ConfigurationError outside 1..10.
    """

    temperature: float = 2.0
    alpha: float = 0.5
    beta: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.temperature <= 10:
            raise ConfigurationError(f"distillation temperature is {self.temperature}; use 2 to 10, or 1 for plain KL")
        if self.alpha < 0 or self.beta < 0:
            raise ConfigurationError(f"weights of a loss cannot be negative: alpha {self.alpha}, beta {self.beta}")

    def __call__(
        self,
        logits: torch.Tensor,
        targets: SoftTargets,
        labels: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        states: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """logits [n, vocabulary], labels [n], weights [n] (default equal), states: student's and teacher's [n, hidden]."""
        if targets.temperature != self.temperature:
            raise ConfigurationError(
                f"targets were made at temperature {targets.temperature}, the loss has {self.temperature}; make them again"
            )
        loss = soft_target_loss(logits, targets, weights)
        if self.alpha and labels is not None:
            loss = loss + self.alpha * _mean(F.cross_entropy(logits.float(), labels, reduction="none"), weights)
        if self.beta and states is not None:
            loss = loss + self.beta * hidden_state_loss(*states, weights)
        return loss


def soft_target_loss(logits: torch.Tensor, targets: SoftTargets, weights: torch.Tensor | None = None) -> torch.Tensor:
    """tau^2 KL(teacher || student), weighted mean over positions.

    With the teacher's k largest parts only, both distributions are coarsened to k + 1 bins; that is never more than the
    full divergence, and equal to it when k covers the vocabulary.
    """
    tau = targets.temperature
    found = (logits.float() / tau).log_softmax(-1)
    expected = targets.log_probs.float()
    if targets.tokens is not None:
        found = _with_rest(found.gather(-1, targets.tokens.long()))
        expected = _with_rest(expected)
    each = (expected.exp() * (expected - found)).sum(-1)
    return tau * tau * _mean(each, weights)


def hidden_state_loss(
    student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared distance of states [n, hidden] relative to the teacher's mean square, weighted mean over positions."""
    teacher = teacher.float()
    each = (student.float() - teacher).square().mean(-1) / teacher.square().mean().clamp_min(1e-12)
    return _mean(each, weights)


def _with_rest(log_probs: torch.Tensor) -> torch.Tensor:
    """[n, k] -> [n, k + 1]: the last bin holds what is missing to one, at least 1e-6 so that its logarithm exists."""
    rest = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log()
    return torch.cat([log_probs, rest], dim=-1)


def _mean(each: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return each.mean() if weights is None else (each * weights).sum() / weights.sum()
