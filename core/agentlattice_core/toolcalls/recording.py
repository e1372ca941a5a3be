"""What the log holds of a tool call beside the decision: the id of its action, and where it came from.

- Ids, never contents; contents are recorded as redacted metadata.
- Models invent names and ids of any characters and any length: what the log cannot hold is escaped, what is too long is
  cut.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from typing import Any, Final

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.arguments import plain_json
from agentlattice_core.toolcalls.call import ToolCall
from agentlattice_core.toolcalls.mapping import MappedAction, MappingError
from agentlattice_core.toolcalls.redaction import Redactor, redact_text

__all__ = ["MOST_IDS", "context_of", "event_id_of", "recordable", "redact_computed"]

MOST_IDS: Final = 20
"""How many ids of one call are recorded."""
_MAX_EVENT_ID: Final = 1024
_LONGEST_ID: Final = 300


def event_id_of(call: ToolCall, digest: str) -> str:
    """The id of the call's action, never longer than the core takes. Readable from the left, so that the ids of one
    conversation sort together.
    """
    tail = f":{call.tool}:{digest[:16]}:{call.attempt}"
    event_id = f"{call.framework}:{call.identity}{tail}"
    if len(event_id) <= _MAX_EVENT_ID:
        return event_id
    whole = hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{event_id[: _MAX_EVENT_ID - 65]}~{whole}"


def context_of(call: ToolCall, digest: str | None) -> dict[str, Any]:
    """What the log says about where the call came from: ids, never contents."""
    call_id, run, told = call.call_id, call.run, call.context
    if len(told) <= MOST_IDS:
        try:
            # One look at all of them together; nearly always every id is short and plain.
            together = "".join((call.tool, call_id or "", run or "", *told, *told.values()))
        except TypeError:
            pass  # there are numbers among them
        else:
            if len(together) <= _LONGEST_ID and together.isascii() and "\0" not in together:
                context = {
                    **told,
                    "framework": call.framework,
                    "tool": call.tool,
                    "kind": call.kind,
                    "attempt": call.attempt,
                }
                if call_id is not None:
                    context["call_id"] = call_id
                if run is not None:
                    context["run"] = run
                if digest is not None:
                    context["arguments_digest"] = digest
                return context
    context = {
        "framework": call.framework,
        "tool": recordable(call.tool),
        "kind": call.kind,
        "attempt": call.attempt,
    }
    if call_id is not None:
        context["call_id"] = recordable(call_id)
    if run is not None:
        context["run"] = recordable(run)
    if digest is not None:
        context["arguments_digest"] = digest
    for name, value in islice(told.items(), MOST_IDS):
        if isinstance(value, str | int):
            exact = isinstance(value, int) and abs(value) < 2**53
            context.setdefault(recordable(str(name)), value if exact else recordable(str(value)))
    return context


def recordable(text: str, longest: int = _LONGEST_ID) -> str:
    """An id as the log can hold it: models invent tool names and ids of any characters and length."""
    if len(text) > longest:
        text = f"{text[:longest]}..."
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def redact_computed(action: MappedAction, redactor: Redactor) -> None:
    """Redact what callables made of the arguments, which they saw unredacted. Raises MappingError if it is not JSON."""
    options = action.options
    try:
        options.metadata = redactor.redact_canonical(*plain_json(options.metadata, "metadata"))
        if options.data_accessed is not None:
            options.data_accessed = redactor.redact_canonical(
                *plain_json(options.data_accessed, "data_accessed")
            )
    except InvalidRequestError as error:
        raise MappingError(error.message) from None
    for name in ("currency", "beneficiary", "category"):
        value = getattr(options, name)
        if isinstance(value, str):
            setattr(options, name, redact_text(value))
