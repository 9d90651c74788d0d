"""The commands of `mgcc`, each module with its own, and how every command of the project runs: `console`."""
