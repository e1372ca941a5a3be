"""AgentLattice: governance for what AI agents do."""
