"""Stories that language models wrote freely, and variants of the same meaning."""
