"""The web room: HTTP API v1, sign-in, live stream, documentation pages, the built dashboard.

`app.create_app(services)` is the ASGI application, `services.Services` what it needs, `serve.serve_engine`
runs it on a unix socket. This page imports nothing: the gateway of the collector workers must stay small.
"""
