"""libcurl handles as all requests want them, and its errors in words."""

from __future__ import annotations

import os
from collections.abc import Callable

import certifi
import pycurl

LOOPBACK = "localhost,127.0.0.1,::1"
"""Names of this machine: what is sent to it goes through no proxy, whatever the environment says."""

MAX_ANSWER = 16 << 20
"""Bytes of an answer that are read; a longer one is a network error."""


def open_handle(connect_timeout: float, timeout: float, write: Callable[[bytes], None]) -> pycurl.Curl:
    """A handle for POST requests that verifies TLS and follows no redirect. Times in seconds; `write` gets the answer."""
    curl = pycurl.Curl()
    for option, value in (
        (pycurl.POST, 1),
        (pycurl.NOSIGNAL, 1),
        (pycurl.CONNECTTIMEOUT_MS, int(connect_timeout * 1000)),
        (pycurl.TIMEOUT_MS, int(timeout * 1000)),
        (pycurl.FOLLOWLOCATION, 0),
        (pycurl.CAINFO, trusted_authorities()),
        (pycurl.MAXFILESIZE, MAX_ANSWER),
        (pycurl.NOPROXY, without_proxy()),
        (pycurl.ACCEPT_ENCODING, ""),
        (pycurl.TCP_KEEPALIVE, 1),
        (pycurl.WRITEFUNCTION, write),
    ):
        curl.setopt(option, value)
    return curl


def without_proxy() -> str:
    """Hosts that are asked without a proxy: this machine, and those of `no_proxy` or `NO_PROXY` in the environment.

    Told to libcurl, they stand in place of the environment's, so those must be among them.
    """
    own = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").strip()
    # A star is for all hosts only where it stands alone.
    return own if own == "*" else f"{LOOPBACK},{own}" if own else LOOPBACK


def trusted_authorities() -> str:
    """File of the certificate authorities to trust: the environment's, as other tools take it, else certifi's.

    The libcurl in pycurl's wheels has no default of its own.
    """
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name):
            return os.environ[name]
    return certifi.where()


_NETWORK_ERRORS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the host's name is not known",
    pycurl.E_COULDNT_CONNECT: "connection refused",
    pycurl.E_OPERATION_TIMEDOUT: "no answer in time",
    pycurl.E_GOT_NOTHING: "connection closed without an answer",
    pycurl.E_ABORTED_BY_CALLBACK: "connection closed without an answer",  # as a request leaves once
    pycurl.E_RECV_ERROR: "connection lost while waiting for the answer",
    pycurl.E_SEND_ERROR: "connection lost while sending",
    pycurl.E_PARTIAL_FILE: "the answer was cut off",
    pycurl.E_SSL_CONNECT_ERROR: "TLS handshake failed",
    pycurl.E_PEER_FAILED_VERIFICATION: "the server's TLS certificate is not trusted",
}


def network_error(code: int, message: str) -> str:
    """A network error in words. libcurl's own message names hosts and times, so it would never count together."""
    return _NETWORK_ERRORS.get(code, message or f"libcurl error {code}")
