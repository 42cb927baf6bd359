"""The profiles that are loaded, and which of them is active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.errors import UnknownProfileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from semroute_service.profile.model import Profile


class ProfileStore:
    """Switching is one assignment, so every request sees one profile or the other, whole."""

    def __init__(self, profiles: Mapping[str, Profile], active: str) -> None:
        """Raises ``UnknownProfileError`` where ``active`` is not among ``profiles``."""
        self._profiles = dict(profiles)
        if active not in self._profiles:
            raise UnknownProfileError(active, self._profiles)
        self._active = self._profiles[active]

    @property
    def active(self) -> Profile:
        return self._active

    def get(self, name: str = "") -> Profile:
        """The profile called ``name``; the active one where the name is empty."""
        if not name:
            return self._active
        if name not in self._profiles:
            raise UnknownProfileError(name, self._profiles)
        return self._profiles[name]

    def all(self) -> list[Profile]:
        """Every profile in the order of the names."""
        return [self._profiles[name] for name in sorted(self._profiles)]

    def activate(self, name: str) -> Profile:
        """Make ``name`` the profile of requests that name none; returns the one before."""
        previous, self._active = self._active, self.get(name)
        return previous
