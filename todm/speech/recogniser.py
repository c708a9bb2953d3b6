"""A recogniser made of a bundle's files."""

from todm.errors import TodmError
from todm.export.bundle import Bundle
from todm.speech.decode import Recogniser, StreamRecogniser, WholeRecogniser
from todm.speech.tokens import Tokens


def recogniser_of(
    bundle: Bundle, runtime: str, precision: str, beam: int = 1, stream: bool = True, threads: int = 1
) -> Recogniser:
    """Load one runtime's files of a speech bundle.

    Args:
        stream: Chunk by chunk as on a device, else whole utterances at once.

    Raises:
        TodmError: the bundle is not of a recogniser, or lacks that runtime or precision.
    """
    variant = "streaming" if stream else "offline"
    if variant not in bundle.variants:
        raise TodmError(f"{bundle.folder} is not a speech recogniser, so it cannot transcribe")
    methods = bundle.methods(runtime, precision, threads, variant)  # type: ignore[arg-type]
    files = bundle.files(runtime, precision, variant)  # type: ignore[arg-type]
    tokens = Tokens.from_tokens_txt(next(path for path in files if path.name == "tokens.txt").read_bytes())
    if not stream:
        return WholeRecogniser(methods, tokens, beam)
    main = bundle.manifest["program"]["methods"][0]
    inputs = {entry["name"]: tuple(entry["shape"]) for entry in main["inputs"]}
    states = [inputs[name] for name in main["states"].values()]
    return StreamRecogniser(methods, tokens, states, inputs["x"][1], beam)
