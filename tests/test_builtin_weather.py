from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from builtin_context import context_for
from builtin_services import FORECAST, Services, services

from tornado_live.tools.builtin import weather
from tornado_live.tools.context import ToolContext
from tornado_live.tools.result import Json, ToolCode, ToolError


@asynccontextmanager
async def asking(**options: Json) -> AsyncIterator[tuple[ToolContext, Services]]:
    async with services() as service, httpx.AsyncClient(trust_env=False) as http:
        yield (
            context_for(
                weather.current,
                http=http,
                geocoding_url=service.url,
                forecast_url=f"{service.url}/",
                **options,
            ),
            service,
        )


async def test_a_place_gives_its_weather_now_and_for_three_days() -> None:
    async with asking() as (context, service):
        assert await weather.current("New York", context) == {
            "place": "New York, United States",
            "celsius": 21,
            "sky": "mostly clear",
            "feels_like_celsius": 20,
            "humidity_percent": 52,
            "wind_kmh": 11,
            "local_time": "2026-05-01 09:15",
            "forecast": [
                {
                    "day": "today",
                    "date": "2026-05-01",
                    "sky": "mostly clear",
                    "high_celsius": 23,
                    "low_celsius": 15,
                    "rain_chance_percent": 5,
                },
                {
                    "day": "tomorrow",
                    "date": "2026-05-02",
                    "sky": "light rain",
                    "high_celsius": 18,
                    "low_celsius": 12,
                    "rain_chance_percent": 80,
                },
                {
                    "day": "Sunday",
                    "date": "2026-05-03",
                    "sky": "unknown",
                    "high_celsius": None,
                    "low_celsius": None,
                    "rain_chance_percent": None,
                },
            ],
        }
        asked = service.asked[1].query_arguments
        assert asked["latitude"] == [b"40.71427"]
        assert asked["longitude"] == [b"-74.00597"]
        assert asked["forecast_days"] == [b"3"]
        # What is asked for is what the answer must hold.
        assert set(asked["current"][0].decode().split(",")) <= set(FORECAST["current"])  # type: ignore[call-overload]
        assert set(asked["daily"][0].decode().split(",")) <= set(FORECAST["daily"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("Paris", "Paris, Île-de-France, France"),
        ("Paris, Texas", "Paris, Texas, United States"),
        ("paris, TX", "Paris, Texas, United States"),
        ("Paris, USA", "Paris, Texas, United States"),
        (" Paris , France ", "Paris, Île-de-France, France"),
        ("Paris, Nowhere", "Paris, Île-de-France, France"),
    ],
)
async def test_what_follows_the_comma_chooses_among_places_of_one_name(location: str, place: str) -> None:
    async with asking() as (context, _):
        answer = await weather.current(location, context)
        assert isinstance(answer, dict)
        assert answer["place"] == place


async def test_imperial_units_are_asked_for_and_named() -> None:
    async with asking(units="imperial", days=1) as (context, service):
        answer = await weather.current("New York", context)
        assert isinstance(answer, dict)
        assert {"fahrenheit", "feels_like_fahrenheit", "wind_mph"} <= answer.keys()
        assert service.asked[1].query_arguments["temperature_unit"] == [b"fahrenheit"]
        assert service.asked[1].query_arguments["forecast_days"] == [b"1"]


async def test_an_unknown_place_and_no_place_ask_for_another() -> None:
    async with asking() as (context, service):
        with pytest.raises(ToolError, match='No place called "Atlantis"') as caught:
            await weather.current("Atlantis", context)
        assert caught.value.code is ToolCode.INVALID_ARGUMENTS
        assert caught.value.hint == "Ask for the nearest larger city, or for another spelling."
        with pytest.raises(ToolError, match="No place was named"):
            await weather.current(" , Texas", context)
        assert len(service.asked) == 1


@pytest.mark.parametrize(("status", "retryable"), [(429, True), (503, True), (400, False)])
async def test_a_refusal_of_the_service_is_told_with_its_status(status: int, retryable: bool) -> None:
    async with asking() as (context, service):
        service.status = status
        with pytest.raises(ToolError, match=f"status {status}") as caught:
            await weather.current("New York", context)
        assert (caught.value.code, caught.value.retryable) == (ToolCode.HTTP_ERROR, retryable)


async def test_an_answer_of_another_shape_is_no_forecast() -> None:
    async with asking() as (context, _):
        with pytest.raises(ToolError) as caught:
            await weather.current("broken", context)
        assert caught.value.code is ToolCode.BAD_ANSWER


def test_weather_codes_are_said_in_words() -> None:
    assert [weather.sky(code) for code in (0, 63, 95, 4, None)] == [
        "clear sky",
        "rain",
        "thunderstorm",
        "unknown",
        "unknown",
    ]
