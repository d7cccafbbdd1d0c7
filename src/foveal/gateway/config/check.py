"""What no single field can know: names that must exist, things that must be unique, files that must be there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.models import BackendConfig, ModelConfig
from foveal.gateway.config.problems import Place, Problems, shown, suggestion
from foveal.gateway.pricing.rules.registry import make_rule

__all__ = ["check"]


def check(config: GatewayConfig, problems: Problems) -> None:
    """Records every contradiction in `problems`."""
    if not config.models:
        problems.add(("models",), "is empty; name at least one model and its backends")
    _check_names(config, problems)
    backend_places: dict[str, Place] = {}
    for name, model in config.models.items():
        _check_model(config, name, model, problems)
        for place, backend in _backends(name, model):
            _check_backend(place, backend, backend_places, problems)
    for name, tenant in config.tenants.items():
        for wanted in sorted(tenant.models or ()):
            _must_be_model(config, wanted, ("tenants", name, "models"), problems)
    if config.auth.mode == "keys" and config.state is None:
        problems.add(("auth", "mode"), "keys live in the state file, and there is none; add `state: gateway.db`")
    elif config.keys_required and config.state is None:
        problems.add(("tenants",), "their keys live in the state file, and there is none; add `state: gateway.db`")
    _check_limits(config, problems)
    _check_files(config, problems)


def _check_names(config: GatewayConfig, problems: Problems) -> None:
    owner: dict[str, str] = dict.fromkeys(config.models, "a model")
    for name, model in config.models.items():
        for alias in model.aliases:
            if alias in owner:
                problems.add(("models", name, "aliases"), f"{alias} is already {owner[alias]}; choose another name")
            owner[alias] = f"an alias of {name}"
    if config.default_model is not None:
        _must_be_model(config, config.default_model, ("default_model",), problems)


def _check_model(config: GatewayConfig, name: str, model: ModelConfig, problems: Problems) -> None:
    place = ("models", name)
    if model.backends and model.versions:
        problems.add(place, "has both `backends` and `versions`; move the backends under a version")
    elif not model.specs():
        problems.add(place, "has no backend; add `backends: [http://host:port]`")
    elif not any(version.weight for version in model.all_versions if version.backends):
        problems.add(place, "has no version with a weight above 0 and a backend; give one a weight")
    for version in model.versions.values():
        if version.weight and not version.backends:
            problems.add((*place, "versions", version.version), "has a weight and no backend; add one, or weight: 0")
    if model.fallback is not None and _must_be_model(config, model.fallback, (*place, "fallback"), problems):
        _check_fallback_ends(config, name, problems)
    if model.pricing.family != "auto":
        try:
            make_rule(model.pricing.family, model.pricing.family_options)
        except ConfigurationError as error:
            problems.add((*place, "pricing", "family"), str(error))
    for index, rule in enumerate(model.smart):
        if rule.to == name:
            problems.add((*place, "smart", index, "to"), "is the model itself; name another one")
        else:
            _must_be_model(config, rule.to, (*place, "smart", index, "to"), problems)


def _check_fallback_ends(config: GatewayConfig, name: str, problems: Problems) -> None:
    chain, current = [name], config.models[name].fallback
    while current is not None and current in config.models:
        if current in chain:
            problems.add(("models", name, "fallback"), f"goes in a circle: {' -> '.join([*chain, current])}; break it")
            return
        chain.append(current)
        current = config.models[current].fallback


def _backends(name: str, model: ModelConfig) -> Iterator[tuple[Place, BackendConfig]]:
    for index, backend in enumerate(model.backends):
        yield ("models", name, "backends", index), backend
    for version in model.versions.values():
        for index, backend in enumerate(version.backends):
            yield ("models", name, "versions", version.version, "backends", index), backend


def _check_backend(place: Place, backend: BackendConfig, seen: dict[str, Place], problems: Problems) -> None:
    problem = _url_problem(backend.url)
    if problem:
        problems.add(place, problem)
        return
    if backend.name in seen:
        problems.add(
            place, f"the id {backend.name} is already that of {shown(seen[backend.name])}; give one of them an `id`"
        )
    seen[backend.name] = place


def _url_problem(url: str) -> str | None:
    """Without the URL where it might hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"has a malformed URL ({error}); write http://host:port"
    if parts.username is not None or parts.password is not None:
        return "has credentials in its URL; use api_key: ${NAME}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"has URL {url!r}; write http://host:port or https://host:port"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return f"has URL {url!r}; remove what follows host and port (the gateway adds /v1/...)"
    if port == 0:
        return f"has URL {url!r}; port 0 cannot be reached"
    return None


def _must_be_model(config: GatewayConfig, name: str, place: Place, problems: Problems) -> bool:
    if name in config.models:
        return True
    problems.add(place, f"there is no model {name}{suggestion(name, config.models)}")
    return False


def _check_limits(config: GatewayConfig, problems: Problems) -> None:
    listen = config.listen
    if listen.max_body_bytes > listen.max_bytes_in_flight:
        problems.add(
            ("listen", "max_body_bytes"),
            f"is {listen.max_body_bytes:,}, more than max_bytes_in_flight ({listen.max_bytes_in_flight:,}): such a body "
            "could never be read; lower it or raise the other",
        )
    if config.cache.disk_bytes and config.state is None:
        problems.add(
            ("cache", "disk_bytes"), "the disk cache lies beside the state file, and there is none; add `state: ...`"
        )
    if bool(config.upstream_tls.client_certificate) != bool(config.upstream_tls.client_key):
        problems.add(("upstream_tls",), "client_certificate and client_key belong together; give both")


def _check_files(config: GatewayConfig, problems: Problems) -> None:
    tls, upstream = config.listen.tls, config.upstream_tls
    files: list[tuple[Place, Path | None]] = [
        (("upstream_tls", "ca"), upstream.ca),
        (("upstream_tls", "client_certificate"), upstream.client_certificate),
        (("upstream_tls", "client_key"), upstream.client_key),
    ]
    if tls is not None:
        files += [
            (("listen", "tls", "certificate"), tls.certificate),
            (("listen", "tls", "key"), tls.key),
            (("listen", "tls", "client_ca"), tls.client_ca),
        ]
    files += [
        (("models", name, "pricing", "latency_model"), m.pricing.latency_model) for name, m in config.models.items()
    ]
    for place, file in files:
        if file is not None and not file.is_file():
            problems.add(
                place, f"there is no file {file}; check the path (relative ones start at the configuration file)"
            )
    if config.state is not None and not config.state.parent.is_dir():
        problems.add(("state",), f"there is no directory {config.state.parent}; create it")
