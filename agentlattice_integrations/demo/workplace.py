"""The tools of the demonstration: plain functions over a workplace that only pretends, each marked with its action.

- The tools know no policy and no framework. What they did is in `Workplace.done`, so that a check can compare what
  happened with what was allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from agentlattice_core.toolcalls import arg, governed

__all__ = ["BRANCH_FILES", "Workplace"]

BRANCH_FILES: Final = tuple(f"src/billing/module_{number:02}.py" for number in range(1, 88))
"""The files that the demonstration's branch changes: 87 of them."""


class Workplace:
    """A company of a few lists. `done` holds each tool that ran with its arguments, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, dict[str, Any]]] = []

    def runs(self, tool: str) -> list[dict[str, Any]]:
        """The arguments of each run of `tool`."""
        return [arguments for name, arguments in self.done if name == tool]

    @property
    def tools(self) -> list[Callable[..., str]]:
        """The tools as plain functions, for a framework to wrap."""
        done = self.done

        @governed("repo.read", data_accessed=[{"type": "source_code", "count": 1, "sensitivity": "low"}])
        def list_changed_files(branch: str) -> str:
            """List the files that a branch changes, one per line."""
            done.append(("list_changed_files", {"branch": branch}))
            return "\n".join(BRANCH_FILES)

        @governed("pr.open", metadata={"pr_size": lambda arguments: len(arguments["files"])})
        def open_pull_request(branch: str, files: list[str]) -> str:
            """Open a pull request with some of the files that a branch changes."""
            done.append(("open_pull_request", {"branch": branch, "files": files}))
            return f"opened a pull request with {len(files)} files"

        @governed(
            "secret.read",
            metadata={"sensitivity": "critical"},
            data_accessed=[{"type": "credentials", "count": 3, "sensitivity": "critical"}],
        )
        def read_credentials(service: str) -> str:
            """Read a service's secrets: database passwords and API keys."""
            done.append(("read_credentials", {"service": service}))
            return f"the credentials of {service}"

        @governed("config.read", data_accessed=[{"type": "filesystem", "count": 1, "sensitivity": "low"}])
        def read_configuration(service: str) -> str:
            """Read a service's configuration: log level, feature flags, endpoints."""
            done.append(("read_configuration", {"service": service}))
            return f"log level of {service} is info, feature flag new-checkout is on, database pool is 5"

        @governed("deploy.trigger")
        def deploy(service: str, environment: str) -> str:
            """Deploy a service to an environment."""
            done.append(("deploy", {"service": service, "environment": environment}))
            return f"deployed {service} to {environment}"

        @governed("refund.issue", amount=arg("amount"), currency="EUR", beneficiary=arg("customer"))
        def issue_refund(customer: str, amount: str) -> str:
            """Refund a customer an amount in euros, such as 12.50."""
            done.append(("issue_refund", {"customer": customer, "amount": amount}))
            return f"refunded {amount} EUR to {customer}"

        return [
            list_changed_files,
            open_pull_request,
            read_credentials,
            read_configuration,
            deploy,
            issue_refund,
        ]
