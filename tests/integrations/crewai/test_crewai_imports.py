"""What is imported when: CrewAI takes seconds and a lot of memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WITHOUT_CREWAI = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "crewai" or name.startswith("crewai."):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Missing())
"""


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_crewai_the_error_says_what_to_install() -> None:
    """One line, with the command."""
    done = _python(_WITHOUT_CREWAI + "import agentlattice_integrations.crewai")
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last == 'ImportError: crewai is not installed; run `pip install "agentlattice-integrations[crewai]"`'
    )


@pytest.mark.parametrize(
    "module", ["agentlattice_core", "agentlattice_integrations", "agentlattice_integrations.contract"]
)
def test_nothing_else_imports_crewai(module: str) -> None:
    """Only its own room does."""
    done = _python(f"import sys, {module}; print('crewai' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_the_room_imports_no_other_framework() -> None:
    """An adapter brings its own framework alone."""
    found = "[name for name in ('langgraph', 'agents') if name in sys.modules]"
    done = _python(f"import sys, agentlattice_integrations.crewai; print({found})")
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr
