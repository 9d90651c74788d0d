"""The endpoints of OpenAI's API, as its unmodified client sends and reads them."""
