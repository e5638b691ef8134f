"""One module per command: `run(config, ui) -> Report`."""
