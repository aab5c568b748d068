"""What a Worker's `env.AI` binding calls, and the proxied requests that it is unwrapped from."""
