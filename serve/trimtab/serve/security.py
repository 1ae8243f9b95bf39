"""All that stands in front of the application, in order: request ids, proxies, CORS, authentication, limits."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from trimtab.platform.secrets import hide_secrets
from trimtab.platform.settings import CorsSettings, Settings, is_loopback, networks
from trimtab.serve.auth import Authentication
from trimtab.serve.browsers import NoForeignPages
from trimtab.serve.envelope import ProxyHeaders, RequestIds
from trimtab.serve.keystone import Tokens, validator
from trimtab.serve.limits import Buckets, RateLimit, SizeLimit
from trimtab.serve.policy import Policies


def protect(app: FastAPI, settings: Settings) -> None:
    """Put everything in front of a finished application; nothing can be added to it afterwards.

    Outermost is what errors of all others need: their id, and the caller's real address. Preflights of browsers carry
    no token, so CORS is in front of authentication; without `cors.allowed_origin` it is not there at all.
    """
    hide_secrets(settings)
    guarded: ASGIApp = app.build_middleware_stack()
    guarded = SizeLimit(guarded, settings.max_body_bytes)
    if settings.requests_per_second:
        guarded = RateLimit(guarded, Buckets(settings.requests_per_second, settings.requests_burst))
    if settings.auth == "keystone":
        unasked = frozenset[str]() if settings.enable_webhooks_auth else frozenset({"webhook:trigger"})
        app.state.policies = Policies(settings.policy_file, unasked)
        guarded = _authenticated(guarded, settings)
    else:
        by_name = is_loopback(settings.host) and not settings.trusted_proxies
        guarded = NoForeignPages(guarded, settings.cors.allowed_origin, by_name=by_name)
    if settings.cors.allowed_origin:
        guarded = _cors(guarded, settings.cors)
    if settings.trusted_proxies:
        guarded = ProxyHeaders(guarded, networks(settings.trusted_proxies))
    app.middleware_stack = RequestIds(guarded)


def _authenticated(app: ASGIApp, settings: Settings) -> ASGIApp:
    keystone = settings.keystone_authtoken
    tokens = Tokens(
        validator(keystone),
        keep_s=keystone.token_cache_time,
        size=keystone.token_cache_size,
        workers=keystone.validations,
        patience_s=keystone.http_connect_timeout,
    )
    attempts = Buckets(settings.requests_per_second, settings.requests_burst)
    told = keystone.www_authenticate_uri or keystone.auth_url or ""
    return Authentication(app, tokens, told, attempts, webhooks=settings.enable_webhooks_auth)


def _cors(app: ASGIApp, cors: CorsSettings) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=cors.allowed_origin,
        allow_methods=cors.allow_methods,
        allow_headers=cors.allow_headers,
        allow_credentials=cors.allow_credentials,
        expose_headers=cors.expose_headers,
        max_age=cors.max_age,
    )
