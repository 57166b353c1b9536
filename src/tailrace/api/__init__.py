"""The HTTP API: `tailrace.api.app.create_app` puts it together."""

__all__: list[str] = []
