"""Pictures of what was measured; reports read results and never run a model."""
