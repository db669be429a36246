"""The command line, one module per command group; `stages.__main__` imports a module when its command is called."""
