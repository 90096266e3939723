"""The weather of a place from Open-Meteo, which needs no key: place to coordinates, then now and three days.

Sources: open-meteo.com/en/docs and open-meteo.com/en/docs/geocoding-api.
"""

from __future__ import annotations

from datetime import date
from typing import Final, TypeVar

import httpx
import msgspec

from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import handler
from tornado_live.tools.result import Json, ToolCode, ToolError

OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "geocoding_url": {
            "type": "string",
            "pattern": "^https?://",
            "default": "https://geocoding-api.open-meteo.com",
        },
        "forecast_url": {"type": "string", "pattern": "^https?://", "default": "https://api.open-meteo.com"},
        "units": {"enum": ["metric", "imperial"], "default": "metric"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 3},
        "allow_private": {
            "type": "boolean",
            "default": False,
            "description": "true: both addresses may lie in the operator's own network",
        },
    },
    "additionalProperties": False,
}

# WMO code table 4677, as far as Open-Meteo uses it.
_SKY: Final = {
    0: "clear sky",
    1: "mostly clear",
    2: "partly cloudy",
    3: "overcast",
    45: "fog",
    48: "freezing fog",
    51: "light drizzle",
    53: "drizzle",
    55: "heavy drizzle",
    56: "light freezing drizzle",
    57: "freezing drizzle",
    61: "light rain",
    63: "rain",
    65: "heavy rain",
    66: "light freezing rain",
    67: "freezing rain",
    71: "light snow",
    73: "snow",
    75: "heavy snow",
    77: "snow grains",
    80: "light rain showers",
    81: "rain showers",
    82: "violent rain showers",
    85: "light snow showers",
    86: "heavy snow showers",
    95: "thunderstorm",
    96: "thunderstorm with light hail",
    99: "thunderstorm with heavy hail",
}
_MOST_BYTES: Final = 200_000


class _Place(msgspec.Struct, frozen=True):
    name: str
    latitude: float
    longitude: float
    country: str = ""
    country_code: str = ""
    admin1: str = ""
    admin2: str = ""

    @property
    def full_name(self) -> str:
        return ", ".join(dict.fromkeys(part for part in (self.name, self.admin1, self.country) if part))


class _Places(msgspec.Struct, frozen=True):
    results: list[_Place] = []


class _Now(msgspec.Struct, frozen=True):
    time: str
    temperature_2m: float
    apparent_temperature: float
    relative_humidity_2m: float
    weather_code: int
    wind_speed_10m: float


class _Days(msgspec.Struct, frozen=True):
    time: list[str]
    weather_code: list[int | None]
    temperature_2m_max: list[float | None]
    temperature_2m_min: list[float | None]
    precipitation_probability_max: list[float | None]


class _Forecast(msgspec.Struct, frozen=True):
    current: _Now
    daily: _Days


Answer = TypeVar("Answer", _Places, _Forecast)


@handler(options=OPTIONS)
async def current(location: str, context: ToolContext) -> Json:
    """Current weather and the next days: `{"place", "celsius", "sky", …, "forecast": [{"day", "sky", …}]}`.

    With option `units: imperial` the names are fahrenheit and wind_mph.
    """
    place = await _find(location, context)
    imperial = context.options["units"] == "imperial"
    forecast = await _get(
        context,
        f"{_url(context, 'forecast_url')}/v1/forecast",
        {
            "latitude": str(place.latitude),
            "longitude": str(place.longitude),
            "current": ",".join(field for field in _Now.__struct_fields__ if field != "time"),
            "daily": ",".join(field for field in _Days.__struct_fields__ if field != "time"),
            "timezone": "auto",
            "forecast_days": str(context.options["days"]),
            **({"temperature_unit": "fahrenheit", "wind_speed_unit": "mph"} if imperial else {}),
        },
        _Forecast,
    )
    degrees, speed = ("fahrenheit", "wind_mph") if imperial else ("celsius", "wind_kmh")
    now = forecast.current
    return {
        "place": place.full_name,
        degrees: round(now.temperature_2m),
        "sky": sky(now.weather_code),
        f"feels_like_{degrees}": round(now.apparent_temperature),
        "humidity_percent": round(now.relative_humidity_2m),
        speed: round(now.wind_speed_10m),
        "local_time": now.time.replace("T", " "),
        "forecast": _days(forecast.daily, degrees),
    }


def sky(code: int | None) -> str:
    """A WMO weather code in words."""
    return "unknown" if code is None else _SKY.get(code, "unknown")


async def _find(location: str, context: ToolContext) -> _Place:
    """The place that is meant. "Paris, Texas" is asked for as Paris; the rest chooses among the answers."""
    name, _, region = (part.strip() for part in location.partition(","))
    if not name:
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "No place was named.", hint="Ask which city is meant.")
    found = await _get(
        context,
        f"{_url(context, 'geocoding_url')}/v1/search",
        {"name": name, "count": "10", "language": "en", "format": "json"},
        _Places,
    )
    if not found.results:
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            f'No place called "{name}" was found.',
            hint="Ask for the nearest larger city, or for another spelling.",
        )
    wanted = [word.strip().lower() for word in region.split(",") if word.strip()]
    # sorted() is stable: among equals the service's own order, by size, stands.
    return sorted(found.results, key=lambda place: -_fits(place, wanted))[0]


def _fits(place: _Place, wanted: list[str]) -> int:
    names = {part.lower() for part in (place.country, place.country_code, place.admin1, place.admin2) if part}
    if place.country_code == "US":
        names |= {"usa", "us", "america", *(code for code, state in _STATES.items() if state in names)}
    if place.country_code == "GB":
        names |= {"uk", "england", "great britain"}
    return sum(word in names for word in wanted)


# What Americans say after the comma.
_STATES: Final = dict(
    entry.strip().split(" ", 1)
    for entry in """
    al alabama; ak alaska; az arizona; ar arkansas; ca california; co colorado; ct connecticut; de delaware;
    fl florida; ga georgia; hi hawaii; id idaho; il illinois; in indiana; ia iowa; ks kansas; ky kentucky;
    la louisiana; me maine; md maryland; ma massachusetts; mi michigan; mn minnesota; ms mississippi; mo missouri;
    mt montana; ne nebraska; nv nevada; nh new hampshire; nj new jersey; nm new mexico; ny new york;
    nc north carolina; nd north dakota; oh ohio; ok oklahoma; or oregon; pa pennsylvania; ri rhode island;
    sc south carolina; sd south dakota; tn tennessee; tx texas; ut utah; vt vermont; va virginia; wa washington;
    wv west virginia; wi wisconsin; wy wyoming
    """.split(";")  # noqa: SIM905 - a list of words
)


def _days(daily: _Days, degrees: str) -> list[Json]:
    rows = zip(
        daily.time,
        daily.weather_code,
        daily.temperature_2m_max,
        daily.temperature_2m_min,
        daily.precipitation_probability_max,
        strict=False,
    )
    return [
        {
            "day": "today" if number == 0 else "tomorrow" if number == 1 else _weekday(day),
            "date": day,
            "sky": sky(code),
            f"high_{degrees}": None if high is None else round(high),
            f"low_{degrees}": None if low is None else round(low),
            "rain_chance_percent": None if rain is None else round(rain),
        }
        for number, (day, code, high, low, rain) in enumerate(rows)
    ]


def _weekday(day: str) -> str:
    try:
        return f"{date.fromisoformat(day):%A}"
    except ValueError:
        return day


async def _get(context: ToolContext, url: str, query: dict[str, str], kind: type[Answer]) -> Answer:
    answer = await context.http.get(
        url,
        params=httpx.QueryParams(query),
        headers={"Accept": "application/json"},
        extensions={"allow_private": context.options["allow_private"] is True, "max_bytes": _MOST_BYTES},
    )
    if answer.status_code != 200:
        raise ToolError(
            ToolCode.HTTP_ERROR,
            f"The weather service answered with status {answer.status_code}.",
            retryable=answer.status_code == 429 or answer.status_code >= 500,
        )
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ToolError(
            ToolCode.BAD_ANSWER, "The weather service sent something that is no forecast.", retryable=True
        ) from error


def _url(context: ToolContext, option: str) -> str:
    return str(context.options[option]).rstrip("/")
