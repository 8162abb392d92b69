"""The paper's table with its own datasets: adapters, protocol, scoring, and the run."""
