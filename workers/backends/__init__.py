"""How an operator is computed: one module per library, all with the same bits."""
