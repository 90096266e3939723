"""The lines to change, for each proxy. Those for nginx are tried by this project's tests.

A line stands for one directive; `{…}` are put in by `lines`. What nginx is told to put into `server` goes into the
server block of the address, in place of directives of the same name there and in its locations, since a location
that has but one proxy_set_header of its own takes none of the server's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tornado_live.deploy.target import Target

PROXIES: Final = ("nginx", "caddy", "traefik", "haproxy")

_HEADERS_NGINX: Final = {
    "http": ('map $http_upgrade $connection_upgrade { default upgrade; "" ""; }',),
    "server": (
        "proxy_http_version 1.1;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $connection_upgrade;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        'proxy_set_header X-Forwarded-Host "";',
        'proxy_set_header X-Real-IP "";',
        'proxy_set_header Forwarded "";',
    ),
}


@dataclass(frozen=True, slots=True)
class Remedy:
    """Lines by the place they belong to: `nginx http`, `caddy`, `.env` and so on."""

    name: str
    places: Mapping[str, Sequence[str]]

    def lines(self, proxy: str, target: Target) -> list[tuple[str, list[str]]]:
        """What to write where, for that proxy; settings of the server itself are for every proxy."""
        values = {
            "host": target.name,
            "port": str(target.port),
            "prefix": target.prefix,
            "origin": target.origin,
            "url": target.url,
        }
        found = []
        for place, lines in self.places.items():
            if place == ".env" or place.split()[0] == proxy:
                shown = []
                for line in lines:
                    for name, value in values.items():
                        line = line.replace(f"<{name}>", value)
                    if not line.endswith("="):  # a setting that has no value here
                        shown.append(line)
                found.append((place, shown))
        return found


HEADERS: Final = Remedy(
    "headers",
    {
        "nginx http": _HEADERS_NGINX["http"],
        "nginx server": _HEADERS_NGINX["server"],
        "caddy reverse_proxy": (
            "header_up Host {hostport}",
            "header_up X-Forwarded-For {remote_host}",
            "header_up X-Forwarded-Proto {scheme}",
            "header_up -X-Forwarded-Host",
            "header_up -X-Real-IP",
            "header_up -Forwarded",
        ),
        "traefik entryPoints.websecure": (
            "forwardedHeaders:",
            "  insecure: false    # and no trustedIPs but those of a proxy in front of this one",
        ),
        "haproxy frontend": (
            "http-request set-header X-Forwarded-For %[src]",
            "http-request set-header X-Forwarded-Proto https",
            "http-request del-header X-Forwarded-Host",
            "http-request del-header X-Real-IP",
            "http-request del-header Forwarded",
        ),
    },
)
READ_TIMEOUT: Final = Remedy(
    "read timeout",
    {
        "nginx server": ("proxy_read_timeout 60s;",),
        "caddy reverse_proxy": ("stream_timeout 0    # of Caddy 2.7 and later, where it is the default",),
        "traefik entryPoints.websecure.transport": ("respondingTimeouts:", "  idleTimeout: 180s"),
        "haproxy defaults": ("timeout tunnel 60s", "timeout client 60s", "timeout server 60s"),
    },
)
BODY: Final = Remedy(
    "body",
    {
        "nginx server": ("client_max_body_size 64k;",),
        "caddy site": ("request_body {", "    max_size 64KiB", "}"),
        "traefik http.middlewares.body.buffering": ("maxRequestBodyBytes: 65536",),
    },
)
BUFFERING: Final = Remedy(
    "buffering",
    {
        "nginx server": ("proxy_buffering off;",),
        "caddy reverse_proxy": ("flush_interval -1",),
        "haproxy defaults": ("option http-no-delay",),
    },
)
TLS: Final = Remedy(
    "tls",
    {
        "nginx server": (
            "listen <port> ssl;",
            "ssl_certificate /etc/ssl/<host>.pem;",
            "ssl_certificate_key /etc/ssl/<host>.key;",
            "ssl_protocols TLSv1.2 TLSv1.3;",
        ),
        "caddy site": ("https://<host>:<port> {", "    # Caddy fetches the certificate by itself", "}"),
        "traefik entryPoints.websecure": ('address: ":<port>"', "http:", "  tls: {}"),
        "haproxy frontend": ("bind :<port> ssl crt /etc/ssl/<host>.pem ssl-min-ver TLSv1.2",),
    },
)
TLS_VERSION: Final = Remedy(
    "tls version",
    {
        "nginx server": ("ssl_protocols TLSv1.2 TLSv1.3;",),
        "caddy tls": ("protocols tls1.2",),
        "traefik tls.options.default": ("minVersion: VersionTLS12",),
        "haproxy global": ("ssl-default-bind-options ssl-min-ver TLSv1.2",),
    },
)
REDIRECT: Final = Remedy(
    "redirect",
    {
        "nginx redirect": ("location / { return 308 <origin>$request_uri; }",),
        "traefik entryPoints.web": (
            "http:",
            "  redirections:",
            "    entryPoint:",
            "      to: websecure",
            "      scheme: https",
        ),
        "haproxy frontend": ("http-request redirect scheme https code 308 unless { ssl_fc }",),
    },
)
TOKENS: Final = Remedy(
    "server tokens",
    {
        "nginx http": ("server_tokens off;",),
        "caddy site": ("header -Server",),
        "haproxy backend": ("http-response del-header Server",),
    },
)
PREFIX: Final = Remedy(
    "prefix",
    {
        "nginx location": (
            "location <prefix>/ {",
            "    proxy_pass http://tornado_live;",
            "}",
        ),
        "caddy site": ("handle <prefix>/* {", "    reverse_proxy 127.0.0.1:3001", "}"),
        "traefik http.routers.voice": ("rule: Host(`<host>`) && PathPrefix(`<prefix>/`)",),
        "haproxy frontend": ("use_backend tornado_live if { path_beg <prefix>/ }",),
        ".env": ("BASE_PATH=<prefix>", "PUBLIC_URL=<url>"),
    },
)
UPSTREAM: Final = Remedy(
    "upstream",
    {
        "nginx http": ("upstream tornado_live { server 127.0.0.1:3001; }",),
        "caddy site": ("reverse_proxy 127.0.0.1:3001",),
        "traefik http.services.voice.loadBalancer": ("servers:", "  - url: http://127.0.0.1:3001"),
        "haproxy backend": ("server one 127.0.0.1:3001",),
    },
)
SLASHES: Final = Remedy("slashes", {"nginx server": ("merge_slashes off;",)})
PUBLIC_URL: Final = Remedy("public url", {".env": ("PUBLIC_URL=<url>",)})
TRUSTED: Final = Remedy(
    "trusted proxies", {".env": ("TRUSTED_PROXIES=127.0.0.1    # where the proxy comes from",)}
)
STORE: Final = Remedy("store", {".env": ("REDIS_URL=redis://…    # the same for every node",)})

ALL: Final = (
    HEADERS,
    READ_TIMEOUT,
    BODY,
    BUFFERING,
    TLS,
    TLS_VERSION,
    REDIRECT,
    TOKENS,
    PREFIX,
    UPSTREAM,
    SLASHES,
    PUBLIC_URL,
    TRUSTED,
    STORE,
)
