"""A recogniser made of a bundle's files."""

from todm.errors import TodmError
from todm.export.bundle import Bundle
from todm.speech.decode import StreamRecogniser
from todm.speech.tokens import Tokens


def recogniser_of(bundle: Bundle, runtime: str, precision: str, beam: int = 1) -> StreamRecogniser:
    """Load one runtime's files of a speech bundle.

    Raises:
        TodmError: the bundle is not of a recogniser, or lacks that runtime or precision.
    """
    main = bundle.manifest["program"]["methods"][0]
    if main["name"] != "encode_chunk":
        raise TodmError(f"{bundle.folder} is not a speech recogniser, so it cannot transcribe")
    methods = bundle.methods(runtime, precision)  # type: ignore[arg-type]
    table = next(path for path in bundle.files(runtime, precision) if path.name == "tokens.txt")  # type: ignore[arg-type]
    inputs = {entry["name"]: tuple(entry["shape"]) for entry in main["inputs"]}
    states = [inputs[name] for name in main["states"].values()]
    tokens = Tokens.from_tokens_txt(table.read_bytes())
    return StreamRecogniser(methods, tokens, states, inputs["x"][1], beam)
