"""The connection to Redis: the `redis` package, which is an extra, behind the two methods that quotas need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from penstock.access.redis_script import LUA
from penstock.access.redis_sharing import RedisAway
from penstock.errors import ConfigError
from penstock.quota_config import QuotaSettings

NO_PACKAGE = (
    "quotas.redis_url needs the package redis, which is not installed: install penstock[redis]"
)


class RedisClient:
    """One connection, made when it is needed, and anew after a failure."""

    def __init__(self, settings: QuotaSettings, password: Callable[[], str] | None = None) -> None:
        """`password` is asked at each connection, so that a new one holds from then on. Raises ConfigError."""
        try:
            import redis.asyncio
        except ImportError:
            raise ConfigError(NO_PACKAGE) from None
        self._settings = settings
        self._password = password
        self._errors: tuple[type[Exception], ...] = (redis.RedisError,)
        self._client: Any = None
        self._script: Any = None

    async def ask(self, words: Sequence[str]) -> Sequence[Any]:
        """As `Redis` says."""
        try:
            if self._client is None:
                self._connect()
            answer = await self._script(keys=[self._settings.redis_prefix], args=words)
        except ConfigError as error:
            # the password is not where it should be
            raise RedisAway(str(error)) from error
        except self._errors as error:
            raise RedisAway(f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, list):
            raise RedisAway(f"the script's answer is no list: {type(answer).__name__}")
        return answer

    async def close(self) -> None:
        """As `Redis` says."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _connect(self) -> None:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._client = Redis(
            **self._where(),
            username=self._settings.redis_username or None,
            password=None if self._password is None else self._password(),
            socket_timeout=self._settings.redis_timeout_secs,
            socket_connect_timeout=self._settings.redis_timeout_secs,
            # what failed is tried again by who asked
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
            client_name="penstock",
        )
        self._script = self._client.register_script(LUA)

    def _where(self) -> dict[str, Any]:
        settings = self._settings
        parts = urlsplit(settings.redis_url)
        if parts.scheme == "unix":
            return {"unix_socket_path": unquote(parts.path)}
        where: dict[str, Any] = {
            "host": parts.hostname,
            "port": parts.port or 6379,
            "db": int(parts.path.strip("/") or 0),
        }
        if parts.scheme == "rediss":
            where |= {
                "ssl": True,
                "ssl_ca_certs": settings.redis_ca_file and str(settings.redis_ca_file),
                "ssl_certfile": settings.redis_cert_file and str(settings.redis_cert_file),
                "ssl_keyfile": settings.redis_key_file and str(settings.redis_key_file),
            }
        return where
