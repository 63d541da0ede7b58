"""Request logs and rollouts as others record them: requests to traces, and back."""
