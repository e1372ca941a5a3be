"""Traces: an entry names the trace that it was made in, so that each finds the other.

- By the OpenTelemetry API where the process has it: nothing is imported for it, and without a current span nothing is
  done.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["current_trace", "with_trace"]


def current_trace() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span, in hexadecimal; nothing if there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": format(found.trace_id, "032x"), "span_id": format(found.span_id, "016x")}


def with_trace(context: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """`context` of an action, with the current trace."""
    found = current_trace()
    return {**(context or {}), **found} if found else context
