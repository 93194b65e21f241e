"""Pictures and pages of results; they read records and never run a model."""
