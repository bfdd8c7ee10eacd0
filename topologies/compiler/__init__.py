"""From a network as authored to operators, groups and a plan."""
