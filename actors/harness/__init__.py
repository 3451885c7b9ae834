"""Other people's policies and harnesses, by websocket: asked by our suites, or served by us."""
