"""Tokens of a conversation, counted and told as Google bills them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .messages import Json
from .voice import INPUT_RATE, OUTPUT_RATE

TOKENS_PER_AUDIO_SECOND = 25
TOKENS_PER_VIDEO_FRAME = 258


@dataclass(slots=True)
class Usage:
    """The whole context is counted again as the prompt of every turn.

    total: what all turns so far came to, for a service that tells sums of the session.
    """

    context: Counter[str] = field(default_factory=Counter)
    total: Counter[tuple[str, str]] = field(default_factory=Counter)

    def copy(self) -> Usage:
        return Usage(self.context.copy(), self.total.copy())

    def read(self, text: str) -> None:
        self.context["TEXT"] += text_tokens(text)

    def heard(self, pcm_bytes: int) -> None:
        self.context["AUDIO"] += round(pcm_bytes / 2 / INPUT_RATE * TOKENS_PER_AUDIO_SECOND)

    def saw(self) -> None:
        self.context["VIDEO"] += TOKENS_PER_VIDEO_FRAME

    def compress(self, trigger: int, target: int) -> None:
        """Forgets what is above `target` once there is more than `trigger`, equally of every modality."""
        size = self.context.total()
        if size > trigger:
            self.context = Counter({name: count * target // size for name, count in self.context.items()})

    def of_turn(
        self,
        audio_bytes: int,
        text: str,
        thought: str = "",
        *,
        cumulative: bool = False,
        names: Literal["response", "candidates"] = "response",
    ) -> dict[str, Json]:
        """usageMetadata of a turn with this output, which is context from then on."""
        counts: Counter[tuple[str, str]] = Counter()
        for modality, count in self.context.items():
            counts["prompt", modality] = count
        if text:
            counts["response", "TEXT"] = text_tokens(text)
        if audio_bytes:
            counts["response", "AUDIO"] = round(audio_bytes / 2 / OUTPUT_RATE * TOKENS_PER_AUDIO_SECOND)
        if thought:
            counts["thoughts", "TEXT"] = text_tokens(thought)
        for (kind, modality), count in counts.items():
            if kind == "response":
                self.context[modality] += count
        self.total += counts
        return _metadata(self.total if cumulative else counts, names)


def text_tokens(text: str) -> int:
    return (len(text) + 3) // 4


def _metadata(
    counts: Mapping[tuple[str, str], int], names: Literal["response", "candidates"]
) -> dict[str, Json]:
    prompt = _of("prompt", counts)
    response = _of("response", counts)
    usage: dict[str, Json] = {
        "promptTokenCount": sum(prompt.values()),
        f"{names}TokenCount": sum(response.values()),
        "totalTokenCount": sum(prompt.values()) + sum(response.values()),  # recorded: without thoughts
        "promptTokensDetails": _details(prompt),
        f"{names}TokensDetails": _details(response),
        "thoughtsTokenCount": sum(_of("thoughts", counts).values()),
    }
    return {name: value for name, value in usage.items() if value}


def _of(kind: str, counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {modality: count for (each, modality), count in counts.items() if each == kind}


def _details(tokens: Mapping[str, int]) -> list[Json]:
    return [{"modality": modality, "tokenCount": count} for modality, count in tokens.items() if count]
