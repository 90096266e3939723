"""The simulator's voice: what it says it can also hear, quickly, and for several people at once."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import pytest

from tornado_live.simulator.voice import (
    INPUT_RATE,
    OUTPUT_RATE,
    Resampler,
    SpeechEnded,
    SpeechStarted,
    Voice,
    VoiceUnavailable,
    load_voice,
    resample,
    sentences,
)

QUESTIONS = [
    "What's the weather in New York?",
    "Execute a SQL query to get user data",
    "Get analytics for the last week",
    "Search the knowledge base for information about AI",
]


@pytest.fixture(scope="module")
def voice() -> Iterator[Voice]:
    loaded = load_voice()
    yield loaded
    loaded.close()


def tone(hertz: float, seconds: float, rate: int) -> bytes:
    count = round(seconds * rate)
    return struct.pack(
        f"<{count}h", *(round(12000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(count))
    )


def silence(milliseconds: int, rate: int = INPUT_RATE) -> bytes:
    return bytes(2 * rate * milliseconds // 1000)


def level(pcm: bytes) -> float:
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    return math.sqrt(sum(sample * sample for sample in samples) / max(1, len(samples)))


async def said(voice: Voice, text: str) -> bytes:
    return b"".join([part async for part in voice.speak(text)])


async def as_microphone(voice: Voice, text: str) -> bytes:
    return silence(400) + resample(await said(voice, text), OUTPUT_RATE, INPUT_RATE) + silence(1000)


def chunks(pcm: bytes, milliseconds: int = 20) -> list[bytes]:
    size = 2 * INPUT_RATE * milliseconds // 1000
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


def plain(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum() or character == " ")


def test_sentences_are_spoken_one_by_one_and_long_ones_are_cut_at_a_comma() -> None:
    assert sentences("It is 21.5 degrees. Dr. Smith says so! Good.") == [
        "It is 21.5 degrees.",
        "Dr. Smith says so!",
        "Good.",
    ]
    long = "a first part that goes on and on, " * 12
    assert all(len(part) <= 180 for part in sentences(long))
    assert " ".join(sentences(long)) == long.strip()
    assert sentences(" ") == []


@pytest.mark.voice
def test_a_resampled_tone_keeps_its_pitch_its_level_and_its_length() -> None:
    for rate in (48_000, 44_100, 8_000, 24_000):
        there = resample(tone(440, 0.5, rate), rate, INPUT_RATE)
        wanted = tone(440, 0.5, INPUT_RATE)
        assert abs(len(there) - len(wanted)) <= 2
        difference = level(
            struct.pack(
                f"<{len(there) // 2 - 400}h",
                *(
                    a - b
                    for a, b in zip(
                        struct.unpack(f"<{len(there) // 2}h", there)[200:-200],
                        struct.unpack(f"<{len(wanted) // 2}h", wanted)[200:-200],
                        strict=False,
                    )
                ),
            )
        )
        assert difference < 0.02 * level(wanted), rate


@pytest.mark.voice
def test_what_the_lower_rate_cannot_hold_is_filtered_out() -> None:
    alias = resample(tone(14_000, 0.3, 48_000), 48_000, INPUT_RATE)
    assert level(alias[800:-800]) < 0.01 * level(tone(14_000, 0.3, 48_000))


@pytest.mark.voice
def test_a_stream_resampled_in_chunks_is_the_same_as_the_whole() -> None:
    whole = tone(300, 0.4, 44_100)
    stream = Resampler(44_100, INPUT_RATE)
    parts = b"".join(stream.feed(whole[at : at + 1000]) for at in range(0, len(whole), 1000)) + stream.flush()
    assert parts == resample(whole, 44_100, INPUT_RATE)


def test_a_rate_that_is_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="0 Hz"):
        resample(b"", 0, INPUT_RATE)


def test_without_the_extra_the_reason_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(VoiceUnavailable, match=r"^hibari is not installed$") as caught:
        load_voice()
    assert not caught.value.installed


@pytest.mark.voice
async def test_the_four_questions_are_heard_as_they_were_said(voice: Voice) -> None:
    for question in QUESTIONS:
        ears = voice.ears()
        events = [
            event for chunk in chunks(await as_microphone(voice, question)) for event in ears.feed(chunk)
        ]
        assert [type(event) for event in events] == [SpeechStarted, SpeechEnded]
        ended = events[1]
        assert isinstance(ended, SpeechEnded)
        assert plain(await voice.transcribe(ended.segment, ended.voiced_ms)) == plain(question)


@pytest.mark.voice
async def test_the_same_text_gives_the_same_samples(voice: Voice) -> None:
    first = await said(voice, "It is sunny. It is warm.")
    assert first == await said(voice, "It is sunny. It is warm.")
    assert level(first) > 300


@pytest.mark.voice
async def test_silence_and_hiss_are_no_speech(voice: Voice) -> None:
    ears = voice.ears()
    hiss = struct.pack("<16000h", *((n * 7919 * 7919) % 401 - 200 for n in range(16000)))
    assert ears.feed(silence(1000)) == []
    assert ears.feed(hiss) == []
    assert ears.flush() == []
    assert await voice.transcribe(silence(1500)) == ""
    assert await voice.transcribe(hiss) == ""


@pytest.mark.voice
async def test_speech_that_the_client_ends_is_taken_up_to_there(voice: Voice) -> None:
    pcm = await as_microphone(voice, "Turn on the lamp.")
    ears = voice.ears(silence_ms=5000)
    assert [type(event) for event in ears.feed(pcm)] == [SpeechStarted]
    assert ears.speaking
    (ended,) = ears.flush()
    assert isinstance(ended, SpeechEnded)
    assert plain(await voice.transcribe(ended.segment)) == "turn on the lamp"
    assert not ears.speaking
    assert ears.flush() == []


@pytest.mark.voice
async def test_while_it_speaks_a_short_sound_does_not_count_as_an_interruption(voice: Voice) -> None:
    pcm = resample(await said(voice, "Stop, I have another question."), OUTPUT_RATE, INPUT_RATE)
    start = next(at for at in range(0, len(pcm), 1024) if voice.ears().feed(pcm[: at + 1024]))
    short = pcm[: start + 1024] + silence(600)
    assert voice.ears().feed(short) != []
    assert voice.ears().feed(short, over_speech=True) == []
    assert SpeechStarted() in voice.ears().feed(pcm, over_speech=True)


@pytest.mark.voice
async def test_a_long_speech_is_heard_whole(voice: Voice) -> None:
    text = " ".join(
        f"Sentence number {n} is about the weather in the city."
        for n in ("one", "two", "three", "four", "five", "six")
    )
    pcm = resample(await said(voice, text), OUTPUT_RATE, INPUT_RATE)
    assert len(pcm) > 2 * INPUT_RATE * 12
    heard = plain(await voice.transcribe(pcm))
    assert heard.count("weather") == 6
    assert "five" in heard or "5" in heard


@pytest.mark.voice
async def test_leaving_an_answer_early_leaves_the_voice_free(voice: Voice) -> None:
    speech = voice.speak("This is the first sentence. " * 20)
    async for _ in speech:
        break
    await speech.aclose()
    assert await said(voice, "Yes.") != b""
