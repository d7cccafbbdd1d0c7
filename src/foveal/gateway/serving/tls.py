"""TLS on both sides, from the configuration's files."""

from __future__ import annotations

import ssl

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.listen import TlsConfig
from foveal.gateway.config.traffic import UpstreamTlsConfig

__all__ = ["client_context", "server_context"]


def server_context(config: TlsConfig | None) -> ssl.SSLContext | None:
    """For the listening side; None for plain HTTP. Raises ConfigurationError for files that cannot be used."""
    if config is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.certificate, config.key)
        if config.client_ca is not None:
            context.load_verify_locations(config.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"listen.tls: {config.certificate} and {config.key} cannot be used ({error}); give PEM files that belong together"
        ) from error
    return context


def client_context(config: UpstreamTlsConfig) -> ssl.SSLContext | None:
    """For https backends; None for the system's authorities and no certificate of ours. Raises ConfigurationError."""
    if config == UpstreamTlsConfig():
        return None
    try:
        context = ssl.create_default_context(cafile=str(config.ca) if config.ca else None)
        if config.client_certificate is not None:
            context.load_cert_chain(config.client_certificate, config.client_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"upstream_tls: the files cannot be used ({error}); give PEM files") from error
    return context
