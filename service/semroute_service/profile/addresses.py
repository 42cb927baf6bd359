"""Where a backend is reached: addresses completed and checked.

The address of a provider may hold ``${NAME}`` from the environment, within a label of its host or
a part of its path, and ``{model}`` in its path. No value can make it another host.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from semroute_service.hosts import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from semroute_service.profile.providers import Provider

_NO_ADDRESS = "is no http or https address, such as http://localhost:8000/v1"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MODEL = "{model}"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SEGMENT = re.compile(r"(?!\.+$)[A-Za-z0-9._~-]+")


def fault_of(url: str, provider: Provider) -> str:
    """What is wrong with an address, without repeating it, as it may hold a secret."""
    if not url:
        return f"is no address: {provider.name} has none of its own; declare a backend with a url"
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        return _NO_ADDRESS
    if "@" in parts.netloc:
        return "must not hold a user or a password; keys come from the environment"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return _NO_ADDRESS
    if parts.query or parts.fragment:
        return "must end with its path; what is sent goes below it"
    if not provider.local and parts.scheme == "http" and not is_loopback(parts.hostname):
        return f"{provider.name} gets its key over https or loopback only"
    return ""


def completed(written: str, default_url: str) -> str:
    """OLLAMA_HOST and its like: a host, a host and port, or a whole address, as Ollama reads it.

    What cannot be read is returned as it is, for ``fault_of`` to find.
    """
    default = urlsplit(default_url)
    bare = "://" not in written
    try:
        parts = urlsplit(f"http://{written}" if bare else written)
        port = parts.port or (default.port if bare else None)
    except ValueError:
        return written
    # A server that listens everywhere is reached on this machine.
    host = "127.0.0.1" if parts.hostname in {None, "0.0.0.0", "::"} else parts.hostname  # noqa: S104
    host = f"[{host}]" if host and ":" in host else host
    path = parts.path.rstrip("/").removesuffix(default.path) + default.path
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"


def variables_of(template: str) -> tuple[str, ...]:
    """The environment variables that ``template`` names, each once."""
    return tuple(dict.fromkeys(_VARIABLE.findall(template)))


def fault_of_template(template: str, provider: Provider) -> str:
    """What is wrong with the address of a provider's entry."""
    plain = _VARIABLE.sub("x", template)
    host, _, path = plain.partition("://")[2].partition("/")
    if "$" in plain or "{" in host + path.replace(_MODEL, "x"):
        return "holds a $ or a brace that names nothing; write ${NAME}, or {model} in the path"
    if fault := fault_of(plain.replace(_MODEL, "x"), provider):
        return fault
    *before, written = _VARIABLE.split(urlsplit(template).netloc)
    if before and "." not in written.partition(".")[2]:
        return "must end its host with a written domain, as in https://${NAME}.example.org/v1"
    return ""


def address_of(provider: Provider, environment: Mapping[str, str]) -> tuple[str, str]:
    """The provider's own base URL, or else what must be set before there is one, in words.

    Raises ``ValueError`` where a variable holds what its place in the address cannot.
    """
    override = environment.get(provider.url_env, "").strip() if provider.url_env else ""
    if override:
        return _overridden(completed(override, provider.url), provider), ""
    unset = [name for name in variables_of(provider.url) if not environment.get(name)]
    if unset:
        what = f"{' and '.join(unset)} {'are' if len(unset) > 1 else 'is'} not set"
        return "", f"{provider.url_env} or {what}" if provider.url_env else what
    scheme, mark, rest = provider.url.partition("://")
    host, slash, path = rest.partition("/")
    host = _VARIABLE.sub(lambda found: _label(found[1], environment), host)
    path = _VARIABLE.sub(lambda found: _segment(found[1], environment[found[1]].strip()), path)
    return f"{scheme}{mark}{host}{slash}{path}", ""


def region_of(provider: Provider, environment: Mapping[str, str]) -> str:
    """Where the provider answers; empty where that is not known."""
    return _VARIABLE.sub(lambda found: environment.get(found[1], "").strip(), provider.region)


def with_model(url: str, model: str) -> str:
    """``url`` with the model's id in its place; raises ``ValueError`` where it cannot hold it."""
    return url.replace(_MODEL, _segment("the id", model)) if _MODEL in url else url


def is_host_of(host: str, provider: Provider) -> bool:
    """Whether ``host`` is the provider's: where its url stands, in its domains, or below them."""
    known = (urlsplit(provider.url).hostname, *provider.domains)
    patterns = ("[^.]+".join(map(re.escape, _VARIABLE.split(each)[::2])) for each in known if each)
    return any(re.fullmatch(rf"(.+\.)?{pattern}", host, re.IGNORECASE) for pattern in patterns)


def _overridden(url: str, provider: Provider) -> str:
    """``url``, which a variable holds, where the provider's key may go there."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    if not provider.local and not is_host_of(host, provider):
        what = "holds an address that is not its provider's; give the backend a url of its own"
        raise ValueError(f"{what} ({provider.url_env})")
    return url


def _label(name: str, environment: Mapping[str, str]) -> str:
    """The value of a variable within a host, where an underscore becomes a dash."""
    value = environment[name].strip().replace("_", "-").lower()
    if not _LABEL.fullmatch(value):
        raise ValueError(f"{name} must hold letters, digits and dashes only, as part of a host")
    return value


def _segment(name: str, value: str) -> str:
    if not _SEGMENT.fullmatch(value):
        raise ValueError(
            f"{name} must hold letters, digits and . _ ~ - only, as part of an address"
        )
    return value
