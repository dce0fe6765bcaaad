"""What people look at: figures and metrics."""
