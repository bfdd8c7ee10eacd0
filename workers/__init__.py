"""What computes: kernels, tasks, and the host that runs them."""
