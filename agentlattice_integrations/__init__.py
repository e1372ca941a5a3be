"""Governance adapters for agent frameworks.

Each adapter is a room of its own and imports its framework; this package imports none of them:

- `agentlattice_integrations.langgraph`
- `agentlattice_integrations.crewai`
- `agentlattice_integrations.openai_agents`
- `agentlattice_integrations.contract`: the promises that hold for all of them, as a test suite
"""
