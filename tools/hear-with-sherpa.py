"""What sherpa-onnx hears with a bundle's ONNX files, unchanged: as a stream, and in whole utterances.

python tools/hear-with-sherpa.py runs/digits/subnets/NAME a.wav b.flac
"""

import sys
from pathlib import Path

import numpy as np
import sherpa_onnx
import soundfile

TAIL = 0.7
"""Seconds of silence after a stream's last word, for a causal model to finish it in."""


def files(folder: Path) -> dict[str, str]:
    """The arguments that name the files of one way of use, in int8."""
    named = {part: folder / f"{part}.onnx" for part in ("encoder", "decoder", "joiner")}
    int8 = {part: path.with_suffix(".int8.onnx") for part, path in named.items()}
    found = {part: int8[part] if int8[part].exists() else path for part, path in named.items()}
    return {part: str(path) for part, path in {**found, "tokens": folder / "tokens.txt"}.items()}


def main(subnet: Path, recordings: list[str]) -> None:
    """Print what is heard, a line for each recording and way."""
    folder = subnet / "bundle" / "onnx"
    online = sherpa_onnx.OnlineRecognizer.from_transducer(**files(folder / "streaming"))
    offline = sherpa_onnx.OfflineRecognizer.from_transducer(**files(folder / "offline"))
    for name in recordings:
        samples, rate = soundfile.read(name, dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
        stream = online.create_stream()
        stream.accept_waveform(rate, np.append(mono, np.zeros(int(TAIL * rate), np.float32)))
        stream.input_finished()
        while online.is_ready(stream):
            online.decode_stream(stream)
        print(f"{name} as a stream: {online.get_result(stream)}")
        whole = offline.create_stream()
        whole.accept_waveform(rate, mono)
        offline.decode_stream(whole)
        print(f"{name} as a whole: {whole.result.text}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
