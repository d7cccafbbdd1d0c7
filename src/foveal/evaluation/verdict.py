"""What the gate found, check by check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from foveal.core.errors import ConfigurationError

__all__ = ["Evidence", "Finding", "Verdict"]

Evidence = Literal["exact", "kept", "within noise", "proved", "undecided"]
"""How sure a finding is; see `loss_rule`. "exact": nothing was sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: what was found, what is allowed, and why that passes or not. Texts are for people."""

    check: str
    found: str
    limit: str
    passed: bool
    reason: str
    evidence: Evidence = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All findings about one candidate. `passport_digest` ties the verdict to what was judged; "" without a passport."""

    findings: tuple[Finding, ...]
    profile: str
    passport_digest: str = ""
    base_digest: str = ""

    @property
    def accepted(self) -> bool:
        """At least one check was made, and all passed."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was rejected; empty if it was accepted."""
        return tuple(f"{finding.check}: {finding.reason}" for finding in self.findings if not finding.passed)

    def for_passport(self) -> dict[str, Any]:
        """As plain values, with `accepted` and `reasons` written out."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {"accepted": self.accepted, "reasons": list(self.reasons), **plain}

    @classmethod
    def from_passport(cls, plain: dict[str, Any]) -> Verdict:
        """The reverse of `for_passport`. Raises ConfigurationError: a verdict is not covered by the passport's digest."""
        try:
            return msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"the verdict cannot be read: {error}. Run `foveal prove` again.") from error
