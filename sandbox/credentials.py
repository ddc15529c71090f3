"""The credentials the sandbox accepts. They open nothing but the sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field

TWELVE_TRAITS_API_KEY = "sandbox-12traits-key"
TRAITLY_TOKEN = "sandbox-traitly-token"
PARCELVOY_API_KEY = "pk_sandbox"
SWRVE_APP_ID = "1000"
SWRVE_API_KEY = "sandbox-swrve-api-key"
SWRVE_IDENTITY_SECRET_KEY = "sandbox-swrve-identity-key"
TEAK_GAME_ID = "sandbox-teak-game"
TEAK_SECRET_KEY = "sandbox-teak-secret"

# An app that was removed: Swrve answers 410 to its keys.
SWRVE_GONE_APP_ID = "1001"
SWRVE_GONE_API_KEY = "sandbox-swrve-gone-key"


@dataclass(frozen=True)
class SwrveApp:
    """One Swrve app: its id, its API key, its Identity secret key, and whether it was removed."""

    app_id: str
    api_key: str
    identity_secret_key: str = ""
    gone: bool = False


@dataclass(frozen=True)
class Credentials:
    """What each vendor accepts: keys, or for Teak the secret of each game id."""

    twelve_traits: frozenset[str] = frozenset({TWELVE_TRAITS_API_KEY})
    traitly: frozenset[str] = frozenset({TRAITLY_TOKEN})
    parcelvoy: frozenset[str] = frozenset({PARCELVOY_API_KEY})
    swrve: tuple[SwrveApp, ...] = (
        SwrveApp(SWRVE_APP_ID, SWRVE_API_KEY, SWRVE_IDENTITY_SECRET_KEY),
        SwrveApp(SWRVE_GONE_APP_ID, SWRVE_GONE_API_KEY, gone=True),
    )
    teak: dict[str, str] = field(default_factory=lambda: {TEAK_GAME_ID: TEAK_SECRET_KEY})


#: The `credentials:` of each vendor's section of a relay file that talks to a sandbox with its default credentials.
RELAY_FILE: dict[str, dict[str, str]] = {
    "12traits": {"api_key": TWELVE_TRAITS_API_KEY},
    "traitly": {"token": TRAITLY_TOKEN},
    "parcelvoy": {"api_key": PARCELVOY_API_KEY},
    "swrve": {
        "app_id": SWRVE_APP_ID,
        "api_key": SWRVE_API_KEY,
        "identity_secret_key": SWRVE_IDENTITY_SECRET_KEY,
    },
    "teak": {"game_id": TEAK_GAME_ID, "secret_key": TEAK_SECRET_KEY},
}
