"""Reads sentences aloud into files: `python speech.py FOLDER`, with a JSON list of sentences on standard input.

A process of its own: its speech library starts threads that do not survive the forks of the tests' own process.
Writes FOLDER/0.pcm and so on: PCM16 mono at 24 kHz, the same samples for the same sentence.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def spoken(sentences: Sequence[str], folder: Path) -> dict[str, bytes]:
    """Each sentence's sound."""
    subprocess.run(
        [sys.executable, __file__, str(folder)],
        input=json.dumps(sentences),
        text=True,
        check=True,
        timeout=180,
    )
    return {sentence: (folder / f"{n}.pcm").read_bytes() for n, sentence in enumerate(sentences)}


async def _speak(folder: Path, sentences: Sequence[str]) -> None:
    from tornado_live.simulator.voice import load_voice

    voice = load_voice()
    for n, sentence in enumerate(sentences):
        (folder / f"{n}.pcm").write_bytes(b"".join([part async for part in voice.speak(sentence)]))
    voice.close()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    asyncio.run(_speak(Path(sys.argv[1]), json.load(sys.stdin)))
