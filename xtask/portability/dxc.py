"""Compiles every HLSL sample with DXC, Direct3D's compiler of shader model 6.

python3 dxc.py LIBDXCOMPILER FOLDER_OF_SAMPLES
"""

import ctypes
import os
import sys
import time
import uuid
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_uint32, c_void_p, c_wchar_p

library, folder = sys.argv[1:]
dxc = ctypes.CDLL(library)

# Outside Windows the interfaces have a virtual destructor, which takes two places behind the three methods
# of IUnknown.
FIRST = 5


def guid(text):
    return (ctypes.c_char * 16)(*uuid.UUID(text).bytes_le)


def call(this, method, result, *arguments):
    """Calls a method by its place in the table; arguments are pairs of type and value."""
    table = ctypes.cast(this, POINTER(POINTER(c_void_p))).contents
    types = [t for t, _ in arguments]
    f = ctypes.CFUNCTYPE(result, c_void_p, *types)(table[method])
    return f(this, *[v for _, v in arguments])


class Buffer(ctypes.Structure):
    _fields_ = [("text", c_char_p), ("size", c_size_t), ("encoding", c_uint32)]


COMPILER = guid("73e22d93-e6ce-47f3-b5bf-f0664f39c1b0")
COMPILER3 = guid("228B4687-5A6A-4730-900C-9702B2203F54")
RESULT = guid("58346CDA-DDE7-4497-9461-6F87AF5E0659")
BLOB = guid("8BA5FB08-5195-40e2-AC58-0D989C3A0102")
ERRORS = 2

compiler = c_void_p()
if dxc.DxcCreateInstance(COMPILER, COMPILER3, byref(compiler)) != 0:
    sys.exit(f"{library} has no IDxcCompiler3")


# As wgpu calls it.
ARGUMENTS = ["-E", "main", "-T", "cs_6_2", "-enable-16bit-types", "-HV", "2018"]


def compile_one(source, arguments=ARGUMENTS):
    """None, or DXC's error message."""
    words = (c_wchar_p * len(arguments))(*arguments)
    result = c_void_p()
    code = call(
        compiler, FIRST, c_int32,
        (c_void_p, ctypes.addressof(buffer := Buffer(source, len(source), 65001))),
        (c_void_p, ctypes.addressof(words)), (c_uint32, len(arguments)), (c_void_p, None),
        (c_void_p, ctypes.addressof(RESULT)), (c_void_p, ctypes.addressof(result)),
    )
    del buffer
    if code != 0:
        return f"Compile returned {code & 0xffffffff:#x}"
    status = c_int32()
    call(result, FIRST, c_int32, (c_void_p, ctypes.addressof(status)))
    text = None
    if status.value != 0:
        blob = c_void_p()
        # IDxcResult has the methods of IDxcOperationResult (three), then HasOutput and GetOutput.
        call(result, FIRST + 4, c_int32, (c_uint32, ERRORS), (c_void_p, ctypes.addressof(BLOB)),
             (c_void_p, ctypes.addressof(blob)), (c_void_p, None))
        pointer = call(blob, FIRST, c_void_p)
        text = ctypes.string_at(pointer, call(blob, FIRST + 1, c_size_t)).decode(errors="replace")
        call(blob, 2, c_uint32)
    call(result, 2, c_uint32)
    return text


# Must be refused; otherwise the check would not detect errors.
WRONG = {
    "an unknown name": b"[numthreads(8, 1, 1)] void main() { nothing(); }",
    "more group memory than there is": b"""
        RWByteAddressBuffer o : register(u0);
        groupshared float a[9000];
        [numthreads(8, 1, 1)] void main(uint3 i : SV_GroupThreadID) {
            for (uint n = i.x; n < 9000; n += 8) a[n] = o.Load(n * 4);
            GroupMemoryBarrierWithGroupSync();
            o.Store(i.x * 4, a[o.Load(i.x)]);
        }""",
}
failed, slowest = 0, (0.0, "")
for what, source in WRONG.items():
    if compile_one(source) is None:
        failed += 1
        print(f"{what} was not refused")
files = sorted(f for f in os.listdir(folder) if f.endswith(".hlsl"))
if not files:
    sys.exit(f"no .hlsl in {folder}")
for name in files:
    begin = time.monotonic()
    with open(os.path.join(folder, name), "rb") as f:
        error = compile_one(f.read())
    slowest = max(slowest, (time.monotonic() - begin, name))
    if error is not None:
        failed += 1
        lines = [line for line in error.splitlines() if "error" in line] or [error.strip()]
        print(f"{name}: {lines[0]}")
print(f"DXC: {len(files)} samples, {failed} failures, slowest {slowest[1]} in {slowest[0]:.2f} s")
sys.exit(1 if failed else 0)
