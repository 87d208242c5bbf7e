"""Who am I, and may I: the two reviews that every known user may ask for.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Optional

from kubews.testing import access, objects, protobuf
from kubews.testing.access import Refused, User

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request

AUTHENTICATION = "authentication.k8s.io"
AUTHORIZATION = "authorization.k8s.io"

#: Kind of the review, by group and resource.
KINDS = {
    (AUTHENTICATION, "selfsubjectreviews"): "SelfSubjectReview",
    (AUTHORIZATION, "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
}
# SelfSubjectReview of v1 came with it (``pkg/registry/authentication/rest``).
_SINCE = {AUTHENTICATION: 28, AUTHORIZATION: 0}


def kind_of(group: str, resource: str, minor: int) -> Optional[str]:
    """Return the kind of that review, or None if there is no such."""
    return KINDS.get((group, resource)) if minor >= _SINCE.get(group, 0) else None


def serve(connection: Connection, request: Request, user: User, group: str, resource: str) -> None:
    """Answer a review.

    Raises:
        Refused: 403 for nobody in particular, 405, 415, or 400 for a body that is none.
    """
    if request.method != "POST":
        message = "the server does not allow this method on the requested resource"
        raise Refused(objects.status(405, "MethodNotAllowed", message))
    # The role system:basic-user is for the authenticated.
    if user.acting or user.name == access.ANONYMOUS.name:
        access.authorize(user, "create", resource, group=group)
    spec = _spec(connection, request)
    kind = KINDS[group, resource]
    answer: dict[str, Any] = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {}}
    if group == AUTHENTICATION:
        answer["status"] = {"userInfo": _user_info(user)}
    else:
        answer.update({"spec": spec, "status": {"allowed": _allowed(user, spec)}})
    connection.reply_json(201, answer)


def _spec(connection: Connection, request: Request) -> dict[str, Any]:
    """Return what is asked: nothing by a SelfSubjectReview."""
    media = (request.header("content-type") or "application/json").partition(";")[0].strip()
    try:
        if media == protobuf.MEDIA_TYPE:
            return protobuf.access_spec(connection.body)
        if media == "application/json":
            spec = json.loads(connection.body).get("spec", {})
            if isinstance(spec, dict):
                return spec
            raise ValueError(f"{spec!r} is no spec")
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise Refused(objects.bad_request("the body of the request is no review")) from None
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        f"application/json, {protobuf.MEDIA_TYPE}"
    )
    raise Refused(objects.status(415, "UnsupportedMediaType", message))


def _user_info(user: User) -> dict[str, Any]:
    info: dict[str, Any] = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    info["groups"] = [*sorted(user.groups - {access.AUTHENTICATED}), access.AUTHENTICATED]
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def _allowed(user: User, spec: dict[str, Any]) -> bool:
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        path = spec.get("nonResourceAttributes")
        return isinstance(path, dict)  # discovery, which everybody who is known may do
    word = {key: str(asked.get(key) or "") for key in ("verb", "group", "resource", "subresource")}
    resource = word["resource"] + (f"/{word['subresource']}" if word["subresource"] else "")
    return user.may(word["verb"], resource + (f".{word['group']}" if word["group"] else ""))
