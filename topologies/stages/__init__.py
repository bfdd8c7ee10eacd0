"""The stages that operators are made of."""
