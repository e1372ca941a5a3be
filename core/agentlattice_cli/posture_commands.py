"""`al posture`: how well this log's agents are governed, from 0 to 100, and what that is made of.

- It verifies the whole log first, and so takes the time of `al audit verify`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentlattice_cli import options

if TYPE_CHECKING:
    from agentlattice_core.results import PostureComponent

__all__ = ["posture"]

_MOST_NAMED = 5


def posture(
    db: options.Db = None, signing_key: options.SigningKey = None, json: options.Json = False
) -> None:
    """Show how well agents are governed, 0 to 100: policy coverage, audit integrity, approval response."""
    from agentlattice_cli.opening import proving, served
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve
    from agentlattice_core.posture import posture_of

    settings = resolve({"db": db, "signing_key": signing_key})
    service = served(settings)
    if service is not None:
        with service:
            found = service.posture_sync()
    else:
        with proving(settings) as engine:
            found = posture_of(engine, naming=True)
    out = Output(json=json)
    if json:
        out.document(
            {
                "score": found.score,
                "components": {
                    name: {"score": one.score, "max": one.max, **one.extra}
                    for name, one in found.components.items()
                },
                "unmeasured": found.unmeasured,
            }
        )
        return
    out.fields([("score", f"{found.score:g} of 100")])
    rows = [
        [name, f"{one.score:g}", f"{one.max:g}", _made_of(name, one)]
        for name, one in found.components.items()
    ]
    rows += [[name, "-", "-", f"not measured: {why}"] for name, why in found.unmeasured.items()]
    out.table(["component", "score", "of", "made of"], rows, "")


def _made_of(name: str, component: PostureComponent) -> str:
    from agentlattice_cli.output import shown

    said = component.extra
    if name == "policy_coverage":
        text = (
            f"{said['covered']} of {said['action_types']} action types, "
            f"{said['enforced']} of {said['actions']} actions enforced"
        )
        if said["tampered"]:
            text += f", {said['tampered']} tampered"
        missing = said["uncovered"]
        if missing:
            text += f"; no policy is about {', '.join(shown(one) for one in missing[:_MOST_NAMED])}"
            text += ", ..." if len(missing) > _MOST_NAMED else ""
        return text
    if name == "audit_integrity":
        if not said["chain_valid"]:
            return f"BROKEN: {shown(said['problem'])}"
        cuts = f", {said['cuts']} CUT" if said["cuts"] else ""
        return f"{said['entries']} entries verified, {said['unsigned']} not signed yet{cuts}"
    mean = f", {said['mean_seconds']:g} s on average" if said["mean_seconds"] is not None else ""
    return f"{said['answered']} answered{mean}; {said['timed_out']} timed out, {said['waiting']} waiting"
