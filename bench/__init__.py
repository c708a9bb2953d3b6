"""What the engine costs beside what it replaces: `make bench` writes bench/results.csv. See docs/engine.md."""
