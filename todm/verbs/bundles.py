"""Verbs that make files for devices, and use them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from todm.errors import TodmError


def export(
    subnet: str, to: str = "onnx,executorch", chunk_ms: int | None = None, max_wer_loss: float | None = None,
    max_difference: float | None = None, device: str | None = None, json: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Export an extracted subnet, check it against PyTorch on the test set, measure it, bundle it.

    Args:
        subnet: Folder of the subnet, runs/NAME/subnets/SUBNET.
        to: Runtimes, separated by commas.
        chunk_ms: Signal that one call of a streaming encoder consumes: 160, 320 or 640; by default the recipe's.
        max_wer_loss: Points of word error rate that int8 may cost; by default the recipe's.
        max_difference: Largest relative difference of a float file from PyTorch; by default the recipe's.
        device: Device profile to measure on, by default the recipe's.
        json: Print the result as JSON.
    """
    from todm.deployment import deploy
    from todm.run import Run
    from todm.trained import Trained

    folder = Path(subnet).resolve()
    over: dict[str, Any] = {} if chunk_ms is None else {"model": {"chunk_ms": chunk_ms}}
    gate = {"max_wer_loss": max_wer_loss, "max_difference": max_difference}
    over["export"] = {key: value for key, value in gate.items() if value is not None}
    opened = Run.open(folder.parent.parent).adjusted(over)
    with opened.locked():
        rows = deploy(Trained(opened, device), [folder], to.split(","))
    return {"bundle": os.path.relpath(folder / "bundle"), "files": rows}


def bench(
    bundle: str,
    device: str = "local",
    runtime: str | None = None,
    precision: str | None = None,
    paced: int = 25,
    soak: int = 10_000,
    samples: str | None = None,
    json: bool = False,
) -> dict[str, Any]:
    """Measure the files of a bundle on a device: latency, missed deadlines, load time, memory, size, delegation.

    The row is kept in the bundle, and in bench.csv of the run it belongs to.

    Args:
        bundle: Folder of a bundle or of its subnet.
        device: Device profile: a name shipped with the package or the path of a YAML file.
        runtime: The runtime to report, by default the profile's.
        precision: The precision to report, float or int8, by default the profile's.
        paced: Chunks to measure at the pace of a live signal.
        soak: Cycles over which the growth of memory is watched.
        samples: CSV file to keep the time of every cycle in.
        json: Print the result as JSON.
    """
    from todm.export.bench import keep, measure
    from todm.export.bundle import load_bundle
    from todm.export.device import find_device

    profile, loaded = find_device(device), load_bundle(bundle_folder(bundle))
    row = measure(loaded, profile, runtime, precision, Path(samples) if samples else None, paced, soak)  # type: ignore[arg-type]
    keep(loaded, row)
    if not json:
        for key, value in row.items():
            print(f"{key:20} {value}")
    return row


def verify(bundle: str, json: bool = False) -> dict[str, Any]:
    """Check a bundle on this machine: checksums, parity with PyTorch, delegation; exit code 2 on any breach.

    Args:
        bundle: Folder of a bundle or of its subnet.
        json: Print the result as JSON, also that of a breach.
    """
    from json import dumps

    from todm.export.verify import as_text
    from todm.export.verify import verify as check

    result = check(bundle_folder(bundle))
    if result["breaches"]:
        if json:
            print(dumps(result, indent=2))
        raise TodmError("; ".join(result["breaches"]))
    if not json:
        print(as_text(result))
    return result


def transcribe(
    bundle: str,
    files: Sequence[str] = (),
    device: str = "local",
    runtime: str | None = None,
    precision: str | None = None,
    beam: int = 1,
    stream: bool = False,
    microphone: bool = False,
    json: bool = False,
) -> list[dict[str, Any]]:
    """Print the words of audio files, or of a microphone, recognised by an exported subnet.

    Args:
        bundle: Folder of a bundle or of its subnet.
        files: Audio files of any format, rate and number of channels.
        device: Profile whose runtime, precision and threads are used, on this machine.
        runtime: onnx or executorch, by default the profile's.
        precision: float or int8, by default the profile's.
        beam: Hypotheses kept by the beam search; 1 is greedy.
        stream: Hear the files in pieces as a microphone gives them, and print the words as they come.
        microphone: Listen until Ctrl-C, printing the words as they come.
        json: Print the result as JSON.
    """
    from todm.export.bundle import load_bundle
    from todm.export.device import find_device
    from todm.speech.decode import StreamRecogniser
    from todm.speech.features import SAMPLE_RATE, load_audio
    from todm.speech.live import follow, listen, pieces
    from todm.speech.program import FRAMES_PER_SECOND, LONGEST
    from todm.speech.recogniser import recogniser_of

    profile = find_device(device)
    if profile.reach != "local":
        raise TodmError(f"transcribe works on this machine, not on {profile.name}; measure there with: todm bench")
    if bool(files) == microphone:
        raise TodmError("name audio files to transcribe, or type --microphone")
    heard = [(file, load_audio(file)) for file in files]
    loaded = load_bundle(bundle_folder(bundle))
    # The whole-utterance form has a longest utterance; chunks have none.
    whole = not (stream or microphone) and "offline" in loaded.variants
    whole = whole and all(len(audio) <= LONGEST * SAMPLE_RATE / FRAMES_PER_SECOND for _, audio in heard)
    form = (runtime or profile.runtime, precision or profile.precision)
    recogniser = recogniser_of(loaded, *form, beam, stream=not whole, threads=profile.threads)
    show = None if json else sys.stdout
    if microphone or stream:
        assert isinstance(recogniser, StreamRecogniser)
        sources = [("microphone", listen())] if microphone else [(file, pieces(audio)) for file, audio in heard]
        return [{"file": name, "text": follow(recogniser, source, show)} for name, source in sources]
    result = [{"file": file, "text": recogniser.transcribe(audio)} for file, audio in heard]
    if not json:
        for row in result:
            print(f"{row['file']}: {row['text']}")
    return result


def bundle_folder(path: str) -> Path:
    """The bundle itself, given it or the subnet it is in."""
    folder = Path(path)
    return folder / "bundle" if (folder / "bundle").is_dir() else folder
