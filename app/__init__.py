"""The web UI (`lm app`) and the HTTP API (`lm serve`), installed as lm_studio."""
