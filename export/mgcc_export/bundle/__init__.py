"""What belongs to the whole bundle: its linear preview, and the command that builds it again."""
