"""The auth-provider ``oidc`` of a kubeconfig: an ID token, and how to get the next one.

The token is refreshed shortly before its end and written back to the kubeconfig, for a refresh token may
be good for one use only. What another program has written there meanwhile is used before anybody is asked.

Source: ``client-go: plugin/pkg/client/auth/oidc/oidc.go``.

Threads: see ``Source``.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional, Protocol
from urllib.parse import quote_plus, urlencode

from kubews.config import kubeconfig, writeback
from kubews.config.checks import make_oidc
from kubews.config.cluster import Cluster
from kubews.config.credentials import clean
from kubews.config.issued import Issued
from kubews.config.user import Oidc
from kubews.errors import ConfigError, CredentialsError, KubewsError

_log = logging.getLogger("kubews")
_FORM = "application/x-www-form-urlencoded"


class Fetch(Protocol):
    """Make an HTTP request to anywhere; this package opens no sockets itself.

    Threads: any; blocks.
    """

    def __call__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Optional[bytes],
        ca_pem: Optional[str],
        timeout: Optional[float],
    ) -> tuple[int, bytes]:
        """Return code and body of the answer.

        Raises:
            KubewsError: there was none.
        """


class Source:
    """The ID tokens of one user.

    Args:
        oidc: what the kubeconfig says.
        fetch: how to ask the issuer.

    Threads: one at a time.
    """

    def __init__(self, oidc: Oidc, fetch: Fetch) -> None:
        self._oidc = oidc
        self._on_file = oidc  # what the file was last seen to hold
        self._fetch = fetch

    def issue(self, refused: Optional[str], timeout: Optional[float] = None) -> Issued:
        """Give a token that is still good, refreshed if need be.

        Args:
            refused: one that the API server did not take, though its time is not over.
            timeout: seconds for each request to the issuer.

        Raises:
            CredentialsError: there is none, and none could be got; the message names issuer and cure.

        Threads: blocks.
        """
        found = self._good(self._oidc.id_token, refused)
        if found is None:
            self._reread()
            found = self._good(self._oidc.id_token, refused)
        if found is None:
            self._refresh(timeout)
            token = clean(self._oidc.id_token, f"the id_token of {self._oidc.issuer}")
            found = Issued(token, expires=self._expires(token))
        return found

    def _reread(self) -> None:
        """Take the tokens that the file has now, if another program has put others there."""
        oidc = self._on_file
        if not oidc.file:
            return
        try:
            entry = kubeconfig.read(oidc.file).users.get(oidc.entry)
            now = make_oidc(entry) if entry is not None else None
        except ConfigError:
            return  # being written, or broken since: what was read once counts
        if now is None or (now.issuer, now.client_id) != (oidc.issuer, oidc.client_id):
            return
        if (now.id_token, now.refresh_token) != (oidc.id_token, oidc.refresh_token):
            self._oidc = self._on_file = replace(
                oidc, id_token=now.id_token, refresh_token=now.refresh_token
            )

    def _good(self, token: str, refused: Optional[str]) -> Optional[Issued]:
        if not token or token == refused:
            return None
        where = f'id-token of user "{self._oidc.entry}"'
        issued = Issued(clean(token, where), expires=self._expires(token))
        return issued if issued.fresh() else None

    def _refresh(self, timeout: Optional[float]) -> None:
        oidc = self._oidc
        if not oidc.refresh_token:
            raise self._failure("No valid id-token, and cannot refresh without refresh-token")
        answer = self._ask_token(self._token_endpoint(timeout), timeout)
        id_token = answer.get("id_token")
        if not isinstance(id_token, str) or not id_token:
            raise self._failure(
                'token response did not contain an id_token, either the scope "openid" wasn\'t '
                "requested upon login, or the provider doesn't support id_tokens as part of the "
                "refresh response"
            )
        given = answer.get("refresh_token")
        refresh_token = given if isinstance(given, str) and given else oidc.refresh_token
        self._oidc = replace(oidc, id_token=id_token, refresh_token=refresh_token)
        try:
            writeback.write_tokens(oidc, self._oidc)
            self._on_file = self._oidc
        except (ConfigError, OSError) as exc:
            # They are good as long as this process lives; whoever comes later may have to log in.
            _log.warning("could not persist new tokens of user %s: %s", oidc.entry, str(exc))

    def _token_endpoint(self, timeout: Optional[float]) -> str:
        url = self._oidc.issuer.rstrip("/") + "/.well-known/openid-configuration"
        code, body = self._request("GET", url, {}, None, timeout)
        document = _json(body)
        endpoint = document.get("token_endpoint")
        if code != 200:
            raise self._failure(f"failed to query metadata endpoint: HTTP {code}")
        if not isinstance(endpoint, str) or not endpoint:
            raise self._failure("discovery object doesn't contain a token_endpoint")
        return endpoint

    def _ask_token(self, endpoint: str, timeout: Optional[float]) -> Mapping[str, Any]:
        oidc = self._oidc
        fields = {"grant_type": "refresh_token", "refresh_token": oidc.refresh_token}
        in_form = {**fields, "client_id": oidc.client_id}
        code, body = 0, b""
        if oidc.client_secret:
            pair = f"{quote_plus(oidc.client_id)}:{quote_plus(oidc.client_secret)}"
            basic = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}
            code, body = self._request("POST", endpoint, basic, fields, timeout)
            in_form["client_secret"] = oidc.client_secret
        if code != 200 and not _is_grant_refused(body):
            # As oauth2 of Go does: some issuers know a client by its header, some by the form.
            code, body = self._request("POST", endpoint, {}, in_form, timeout)
        document = _json(body)
        if code != 200:
            said = " ".join(
                str(document[key])[:200]
                for key in ("error", "error_description")
                if key in document
            )
            raise self._failure(f"failed to refresh token: HTTP {code} {said}".rstrip())
        return document

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        form: Optional[Mapping[str, str]],
        timeout: Optional[float],
    ) -> tuple[int, bytes]:
        body = None if form is None else urlencode(form).encode("ascii")
        sent = {"Accept": "application/json", **headers}
        if body is not None:
            sent["Content-Type"] = _FORM
        try:
            return self._fetch(method, url, sent, body, self._authorities(), timeout)
        except ConfigError:
            raise
        except KubewsError as exc:
            raise self._failure(f"it could not be asked: {exc}") from exc

    def _authorities(self) -> Optional[str]:
        """Read the certificates that vouch for the issuer, as those of a cluster are read."""
        oidc = self._oidc
        return Cluster(
            oidc.issuer,
            certificate_authority=oidc.certificate_authority,
            certificate_authority_data=oidc.certificate_authority_data,
            name=f"idp of {oidc.entry}",
        ).ca_pem()

    def _expires(self, token: str) -> float:
        """Read when a token ends: at once if it does not say."""
        parts = token.strip().split(".")
        try:
            if len(parts) != 3:
                raise ValueError
            payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
            end = json.loads(payload).get("exp", 0)
            return float(end)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            problem = "the id-token is not a valid JWT"
        raise self._failure(problem)

    def _failure(self, problem: str) -> CredentialsError:
        return CredentialsError(
            f'getting credentials: oidc issuer {self._oidc.issuer}, user "{self._oidc.entry}": '
            f"{problem}. Log in again if it goes on"
        )


def _is_grant_refused(body: bytes) -> bool:
    """Say whether the issuer knows the client, and refuses what it asks for: asking again is no use."""
    return _json(body).get("error") == "invalid_grant"


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
