"""From the bytes of a body to a request, or to one sentence that names the field and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from gcache.serve.refusals import Refused

Model = TypeVar("Model", bound=BaseModel)
#: Characters of a value that are repeated to whoever sent it.
SHOWN = 60


def read(model: type[Model], body: bytes) -> Model:
    """A body as a request.

    Raises:
        Refused: it is not JSON, or not such a request.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found: list[Any] = error.errors(include_url=False, include_context=False)
        raise _refused(model, found) from None


def _refused(model: type[BaseModel], found: Sequence[Any]) -> Refused:
    first = found[0]
    if first["type"] == "json_invalid":
        return Refused(400, f"the body is not JSON that can be read ({_reason(first['msg'])})", code="invalid_json")
    if not first["loc"]:
        return Refused(400, "the body must be a JSON object")
    path, holder, field = _place(model, first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(holder.model_fields))
        return Refused(400, f"unknown field {_shown(path)}; known here: {known}", path, "unknown_field")
    allowed = holder.model_fields[field].description if field in holder.model_fields else None
    allowed = allowed or first["msg"]
    if first["type"] == "missing":
        return Refused(400, f"{path} is missing; it must be: {allowed}", path, "missing_field")
    return Refused(400, f"{path} must be: {allowed}; got {_value(first['input'])}", path, "invalid_value")


def _place(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[str, type[BaseModel], str]:
    """Where an error is: its path, the model it is in, and the field of that.

    Between the names of fields, a location has numbers of list items and words for the branch of a choice.
    """
    path, holder, field = "", model, ""
    inner: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif inner is not None and (part in inner.model_fields or (part == loc[-1] and not _is_branch(part))):
            path, holder, field = f"{path}.{part}".lstrip("."), inner, part
            inner = _inside(inner.model_fields[part].annotation) if part in inner.model_fields else None
    return path, holder, field


def _is_branch(part: str) -> bool:
    """Whether it is pydantic's name for a branch, such as "list[TextPart]" or "constrained-str"."""
    return part in ("str", "int", "float", "bool", "[key]") or part.startswith(("list[", "constrained-", "function-"))


def _inside(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's type holds, if any."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inside(part)) is not None), None)


def _value(value: Any) -> str:
    """A value, short enough for a sentence."""
    try:
        return _shown(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _reason(message: str) -> str:
    return _shown(message.removeprefix("Invalid JSON: "))
