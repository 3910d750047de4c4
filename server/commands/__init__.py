"""The subcommands of `latentloom`, one module each. Their modules import quickly; heavy imports wait for the work."""
