"""Does a directory hold what its passport says?"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from foveal.artifacts.file_digests import Progress, digest_files
from foveal.artifacts.model_files import is_model_file
from foveal.artifacts.passport import PASSPORT_NAME, Passport
from foveal.artifacts.passport_file import read_passport
from foveal.artifacts.storage import explain_storage_errors
from foveal.core.errors import (
    ArtifactError,
    ChangedFileError,
    ExtraWeightsError,
    MissingFileError,
    NothingQuantisedError,
    PassportSchemaError,
    TruncatedFileError,
    VerdictError,
)

__all__ = ["require_accepted", "verify"]

_REMEDY = "Copy the artefact again, or compress the model again"


def verify(directory: Path, *, progress: Progress | None = None) -> Passport:
    """Read every listed file and compare it with the passport. Returns the passport.

    Cheap checks come first: the passport itself, sizes, files too many; contents last. Raises the ArtifactError of the
    first mistake found; its message counts the others of the same kind.
    """
    passport = read_passport(directory)
    if passport.kind == "quantised" and not passport.quantised_linears:
        raise NothingQuantisedError(
            f"none of the {len(passport.linears)} linear layers of {directory} is quantised",
            "at least one",
            "Check the recipe's targets against the model's module names",
        )
    _check_names(directory, passport)
    _check_sizes(directory, passport)
    _check_extra(directory, passport)
    found = digest_files(directory, passport.files, progress=progress)
    changed = [name for name, entry in passport.files.items() if found[name] != entry]
    if changed:
        name = changed[0]
        raise ChangedFileError(
            f"{directory / name} has SHA-256 {found[name].sha256[:16]}...{_others(changed)}",
            f"{passport.files[name].sha256[:16]}...",
            _REMEDY,
        )
    return passport


def require_accepted(passport: Passport, directory: Path) -> None:
    """Raises VerdictError unless the gate accepted exactly this passport."""
    verdict = passport.verdict
    prove = f"Run `foveal prove {directory} --against BASE`"
    if verdict is None:
        raise VerdictError(f"{directory} has not been judged", "an accepting verdict", prove)
    if verdict.get("passport_digest") != passport.digest:
        raise VerdictError(
            f"the verdict in {directory} is about passport {verdict.get('passport_digest')}", passport.digest, prove
        )
    if verdict.get("accepted") is not True:
        stated = verdict.get("reasons")  # not covered by the digest: anything may stand there
        reasons = "; ".join(map(str, stated)) if isinstance(stated, list) and stated else "no reason is recorded"
        raise VerdictError(
            f"{directory} was rejected by the quality gate ({reasons})",
            "an accepting verdict",
            "Compress with a gentler recipe, or serve it without --require-verdict",
        )


def _check_names(directory: Path, passport: Passport) -> None:
    if not any(is_model_file(name) for name in passport.files):
        raise PassportSchemaError(f"the passport of {directory} lists no model files", "all of them", _REMEDY)
    for name in passport.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or name == PASSPORT_NAME:
            raise PassportSchemaError(
                f"the passport of {directory} lists {name!r}", "names inside the directory", _REMEDY
            )


def _check_sizes(directory: Path, passport: Passport) -> None:
    missing = [name for name in passport.files if not (directory / name).is_file()]
    if missing:
        raise MissingFileError(
            f"{directory / missing[0]} is missing{_others(missing)}", "every file that the passport lists", _REMEDY
        )
    with explain_storage_errors(directory):
        sizes = {name: (directory / name).stat().st_size for name in passport.files}
    wrong = [name for name, entry in passport.files.items() if sizes[name] != entry.bytes]
    if wrong:
        name = wrong[0]
        kind: type[ArtifactError] = ChangedFileError
        if sizes[name] < passport.files[name].bytes:
            kind = TruncatedFileError
        raise kind(
            f"{directory / name} has {sizes[name]:,} bytes{_others(wrong)}", f"{passport.files[name].bytes:,}", _REMEDY
        )


def _check_extra(directory: Path, passport: Passport) -> None:
    with explain_storage_errors(directory):
        present = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
        extra = sorted(name for name in present if is_model_file(name) and name not in passport.files)
    if extra:
        raise ExtraWeightsError(
            f"{directory / extra[0]} is not in the passport{_others(extra)}",
            "no weights or settings beside the listed ones",
            f"Remove it, or {_REMEDY[0].lower()}{_REMEDY[1:]}",
        )


def _others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more files)" if len(names) > 1 else ""
