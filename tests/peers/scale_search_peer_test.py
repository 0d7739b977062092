"""Squared errors of slmc's scale search are no higher, in any tensor, than those of llama.cpp's quantizer for the same type and weights.

llama.cpp's quantizer (ggml_quantize_chunk) is reached in the shared library of the xllamacpp wheel. Weights are ../shared/models/medqa-8m's
and normal ones (slmc-make-model, hidden 512); every type is given to all matrices by --rule. Where llama-quantize itself is installed
(SLMC_LLAMA_QUANTIZE, or llama.cpp/llama-quantize beside the peers' Python), the type of every tensor under every mix is compared too.
Prints what it skips.
"""
import ctypes
import glob
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np

BUILD = os.environ["SLMC_BUILD"]
PROGRAM = os.path.join(BUILD, "slmc")
MEDQA = os.path.join(os.environ["SLMC_SOURCE_DIR"], "..", "shared", "models", "medqa-8m")
TYPES = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"]
MIXES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "iq4_nl",
         "iq4_xs"]


def llama_cpp_library():
    """The wheel's library, which must export ggml_quantize_chunk."""
    site = os.path.dirname(os.path.dirname(gguf.__file__))
    for path in glob.glob(os.path.join(site, "xllamacpp", "*.so")):
        library = ctypes.CDLL(path)
        if hasattr(library, "ggml_quantize_chunk"):
            library.ggml_quantize_chunk.restype = ctypes.c_size_t
            library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
            return library
    return None


def llama_cpp_values(library, values, kind):
    rows, columns = values.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    packed = np.zeros((rows, columns // block * size), np.uint8)
    library.ggml_quantize_chunk(int(kind), values.ctypes.data, packed.ctypes.data, 0, rows, columns, None)
    return gguf.quants.dequantize(packed, kind)


def tensors_of(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values_of(tensor):
    kind = gguf.GGMLQuantizationType(tensor.tensor_type)
    values = gguf.quants.dequantize(np.asarray(tensor.data), kind).astype(np.float32)
    return np.ascontiguousarray(values.reshape(tuple(int(n) for n in reversed(tensor.shape))))


def compare_errors(library, model, folder):
    """Worst ratio over tensors, by type."""
    exact_path, path = os.path.join(folder, "exact.gguf"), os.path.join(folder, "out.gguf")
    subprocess.run([PROGRAM, "quantize", model, "-o", exact_path, "--scheme", "f32", "--check", "bytes", "-q", "--force"], check=True)
    exact = tensors_of(exact_path)
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name.upper()]
        block = gguf.GGML_QUANT_SIZES[kind][0]
        subprocess.run([PROGRAM, "quantize", model, "-o", path, "--scheme", "f16", "--rule", f"weight={name}", "--check", "bytes", "-q", "--force"],
                       check=True)
        worst, sum_ours, sum_theirs = ("", 0.0), 0.0, 0.0
        for tensor in tensors_of(path).values():
            if len(tensor.shape) < 2:
                continue
            values = values_of(exact[tensor.name])
            assert values.shape[1] % block == 0, tensor.name
            ours = float(((values_of(tensor).astype(np.float64) - values) ** 2).sum())
            theirs = float(((llama_cpp_values(library, values, kind).astype(np.float64) - values) ** 2).sum())
            sum_ours, sum_theirs = sum_ours + ours, sum_theirs + theirs
            if ours / theirs > worst[1]:
                worst = (tensor.name, ours / theirs)
        print(f"{os.path.basename(model)} {name}: squared error {sum_ours / sum_theirs:.4f} of llama.cpp's, worst {worst[1]:.4f} in {worst[0]}", flush=True)
        if worst[1] > 1.0:
            sys.exit(f"FAILED: {name}: {worst[0]} has {worst[1]:.4f} times llama.cpp's squared error")


def compare_mixes(program, model, folder):
    source, theirs, ours = (os.path.join(folder, name) for name in ("bf16.gguf", "theirs.gguf", "ours.gguf"))
    subprocess.run([PROGRAM, "quantize", model, "-o", source, "--scheme", "bf16", "--check", "bytes", "-q", "--force"], check=True)
    for scheme in MIXES:
        subprocess.run([PROGRAM, "quantize", model, "-o", ours, "--scheme", scheme, "--check", "bytes", "-q", "--force"], check=True)
        subprocess.run([program, source, theirs, scheme, "2"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        expected = {name: int(tensor.tensor_type) for name, tensor in tensors_of(theirs).items()}
        found = {name: int(tensor.tensor_type) for name, tensor in tensors_of(ours).items()}
        kinds = [int(gguf.GGUFReader(path).get_field("general.file_type").parts[-1][0]) for path in (ours, theirs)]
        for name, kind in expected.items():
            if found.get(name) != kind:
                sys.exit(f"FAILED: {scheme}: {name} is {found.get(name)}, llama-quantize gives {kind}")
        if kinds[0] != kinds[1]:
            sys.exit(f"FAILED: {scheme}: general.file_type is {kinds[0]}, llama-quantize gives {kinds[1]}")
    print(f"{os.path.basename(model)}: the types of {len(MIXES)} mixes equal llama-quantize's")


def make_model(folder, name, *options):
    path = os.path.join(folder, name)
    program = next((p for p in (os.path.join(BUILD, "slmc-make-model"), os.path.join(BUILD, "tests", "bench", "slmc-make-model")) if os.path.exists(p)), None)
    if program is None:
        print("skipped: slmc-make-model is not built (ninja slmc-make-model)")
        return None
    # llama.cpp needs a tokenizer to open a file; medqa-8m's is copied.
    subprocess.run([program, "-o", path, "--tokenizer", MEDQA, *options], check=True, stdout=subprocess.DEVNULL)
    return path


def main():
    library = llama_cpp_library()
    if library is None or not os.path.isdir(MEDQA):
        print("skipped: the xllamacpp wheel or", MEDQA, "is absent")
        sys.exit(77)
    program = os.environ.get("SLMC_LLAMA_QUANTIZE", os.path.join(os.path.dirname(sys.executable), "..", "..", "llama.cpp", "llama-quantize"))
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--layers", "3", "--hidden", "512", "--ffn", "768", "--heads", "8", "--kv-heads", "2", "--head-dim", "64", "--vocab", "8192"]
        odd = ["--layers", "17", "--hidden", "288", "--ffn", "320", "--heads", "9", "--kv-heads", "9", "--head-dim", "32", "--vocab", "8192", "--untied"]
        models = [MEDQA, make_model(folder, "normal", *sizes)]
        for model in filter(None, models):
            compare_errors(library, model, folder)
        if not os.path.exists(program):
            print("skipped: comparing the mixes' types, because llama-quantize is not at", program)
            return
        for model in filter(None, models + [make_model(folder, "odd", *odd)]):
            compare_mixes(program, model, folder)


main()
