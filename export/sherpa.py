"""The layout that sherpa-onnx expects of a transducer's files, checked before any of them is written.

It reads inputs and outputs by position and sizes from each file's metadata. A missing entry ends its process
without a word, so it has to be found here. The keys are those that its sources read: for streams
`online-lstm-transducer-model.cc`, for whole utterances `offline-transducer-model.cc` and `offline-recognizer-impl.cc`.
"""

from todm.errors import TodmError
from todm.program import Method, Program

TRANSDUCER = {"encoder", "decoder", "joiner"}
STREAM = ("model_type", "T", "decode_chunk_len", "num_encoder_layers", "d_model", "rnn_hidden_size")
REQUIRED: dict[str, dict[str, tuple[str, ...]]] = {
    "streaming": {"encoder": STREAM, "decoder": ("vocab_size", "context_size"), "joiner": ("joiner_dim",)},
    "offline": {"encoder": ("model_type",), "decoder": ("vocab_size", "context_size"), "joiner": ("joiner_dim",)},
}
"""Variant -> file -> metadata it must have."""


def metadata(program: Program, method: Method) -> dict[str, str]:
    """All that a method's file says of itself."""
    return {"todm_method": method.name, **program.metadata, **method.metadata}


def check_layout(program: Program) -> None:
    """Check that the files of a transducer have what their reader needs; any other program passes.

    Raises:
        TodmError: an entry of metadata or the table of symbols is missing.
    """
    for variant, methods in program.ways().items():
        if variant not in REQUIRED or {method.file for method in methods} != TRANSDUCER:
            continue
        for method in methods:
            there = metadata(program, method)
            missing = [key for key in REQUIRED[variant][method.file] if not there.get(key)]
            if missing:
                raise TodmError(
                    f"{variant}/{method.file}.onnx lacks metadata {', '.join(missing)}, without which sherpa-onnx "
                    f"ends its process; give them in `metadata` of method {method.name!r}"
                )
        if "tokens.txt" not in program.assets:
            raise TodmError(f"the {variant} files lack tokens.txt; give it in the program's `assets`")
