"""The kiosk: a server over the runtime that OpenAI's clients and a page speak to. Extra `serve`; docs/serving.md."""
