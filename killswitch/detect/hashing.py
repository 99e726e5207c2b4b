"""``cpu.hashing``: does the code that keeps a CPU busy look like hashing for its own sake? 0 = no, 1 = without doubt.

What separates hashing from other heavy work is the mix of instructions, not how tight the loops are (compressors and
matrix products are as tight). The shapes that proof-of-work and password hashing have:

========== ===========================================================================================================
arx        rotations together with xor and addition: SHA-1/2, MD5, BLAKE, Salsa/ChaCha, scrypt, Argon2 (scalar, SSE, AVX)
chi        xor with and-not, and some rotation: Keccak (SHA-3, Ethash, KangarooTwelve)
engine     the CPU's own SHA or AES instructions
hard_aes   few AES rounds amid wide multiplications and xor: CryptoNight and its kin, bound by memory
mulxor     vector multiplication, addition and xor: yescrypt, Argon2 with SSE or AVX
sbox       xor and add of looked-up table entries in turn, hardly a jump: Blowfish, hence bcrypt
bitslice   whole vector registers xored, anded and ored, nothing added or shuffled: DES crackers
virtual    code made at run time that mixes packed doubles, wide multiplications, xor and rotation: RandomX's programs
========== ===========================================================================================================

The score is that of the best shape, less what speaks against it: floating point, time spent in the kernel, and above all
*input*. A checksum, a backup or TLS reads as many bytes as it hashes; proof-of-work reads next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.detect.mix import Mix, measure
from killswitch.events import Code

MB = 1_000_000
# Bytes read for each second of CPU time. The checksums in use consume more than 100 MB in it; a miner a few KB, and a
# cracker that works from files some MB.
INPUT_NONE = 16 * MB
INPUT_ALL = 80 * MB
MIN_CPU_NS = 100_000_000  # less CPU time between two readings gives no rate


@dataclass(frozen=True, slots=True)
class Score:
    value: float  # 0..1
    shape: str  # the best one, "" = none
    reasons: tuple[str, ...]  # for people
    input_rate: float  # bytes read for each second of CPU time

    @property
    def told(self) -> str:
        """``hashing score 0.92: …``"""
        return f"hashing score {self.value:.2f}" + (f" ({', '.join(self.reasons)})" if self.reasons else "")


NOTHING = Score(0.0, "", (), 0.0)


def score(code: Code, previous: Code | None = None, *, kernel_share: float = 0.0) -> Score:
    """Judge one reading. ``previous``: the reading before, of the same program; input is then counted since that one.

    ``kernel_share``: of the process's samples, 0..1. Code of a machine that we have no table for scores 0, and says so.
    """
    mix = measure(code.machine, code.blocks)
    if mix is None:
        return Score(0.0, "", (f"cannot be told from {len(code.blocks)} blocks of {code.machine} code",), 0.0)
    found = shapes(mix)
    shape = max(found, key=lambda name: found[name])
    value = found[shape]
    if value < 0.05:
        return NOTHING
    rate = input_rate(code, previous)
    input_share = ramp(rate, INPUT_NONE, INPUT_ALL)
    value *= (1 - 0.75 * input_share) * (1 - ramp(kernel_share, 0.6, 0.95))
    reasons = [f"{shape}: {_shares(mix, shape)}"]
    if input_share:
        reasons.append(f"but it reads {rate / MB:.0f} MB per second of CPU time")
    if kernel_share > 0.6:
        reasons.append(f"but {kernel_share:.0%} of its time is the kernel's")
    if mix.anonymous > 0.5:
        reasons.append("code made at run time")
    return Score(round(value, 3), shape, tuple(reasons), rate)


def ramp(x: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, straight in between."""
    return min(1.0, max(0.0, (x - low) / (high - low)))


def shapes(mix: Mix) -> dict[str, float]:
    """How well the mix fits each shape, 0..1. The thresholds lie between measured loads: see docs/detection.md."""
    no_fp = 1 - ramp(mix["fp"], 0.06, 0.20)
    straight = 1 - ramp(mix["jump"], 0.14, 0.24)
    # A vector rotation is a shift left, one right and an or: about as many left as right. Bit boards have that, too, but
    # they do not add.
    fewer, more = sorted((mix["vleft"], mix["vright"]))
    vector_rot = fewer * ramp(max(mix["vadd"], mix["vandn"]), 0.01, 0.03) * ramp(fewer / more if more else 0, 0.4, 0.6)
    rot = mix["rot"] + vector_rot
    xor, add = mix["xor"], mix["add"] + mix["vadd"]
    andn = mix["andn"] + mix["vandn"]
    arx = ramp(rot, 0.012, 0.026) * ramp(rot + xor + 0.2 * add, 0.07, 0.12) * ramp(add, 0.01, 0.03) * no_fp
    # Keccak's and-not; or and, or, not on their own, where lanes are kept complemented to save the nots.
    choose = max(ramp(andn, 0.02, 0.04), ramp(mix["logic"], 0.05, 0.10) * ramp(rot, 0.04, 0.08))
    chi = ramp(rot + mix["shift"], 0.006, 0.012) * choose * ramp(xor, 0.07, 0.11) * no_fp
    # Carry-less multiplication alone is a CRC; with AES it is GCM.
    aes = ramp(mix["aes"] + min(mix["clmul"], mix["aes"]), 0.01, 0.06)
    engine = max(ramp(mix["sha"], 0.008, 0.03), aes) * no_fp
    hard_aes = ramp(mix["aes"], 0.008, 0.016) * ramp(mix["mul"], 0.02, 0.04) * ramp(xor, 0.05, 0.08) * no_fp
    mulxor = ramp(mix["vmul"], 0.025, 0.045) * ramp(mix["vadd"], 0.03, 0.05) * ramp(mix["vxor"], 0.06, 0.10) * no_fp
    sbox = ramp(mix["table_xor"] + mix["table_add"], 0.05, 0.09) * ramp(mix["table_add"], 0.02, 0.04) * straight
    sbox *= ramp(mix["shift"], 0.05, 0.09) * ramp(xor, 0.09, 0.13)
    calm = 1 - ramp(mix["vadd"] + mix["vshift"] + mix["shuffle"] + mix["vmul"], 0.03, 0.10)
    bitslice = ramp(mix["vxor"], 0.05, 0.10) * ramp(mix["vlogic"], 0.04, 0.08) * calm
    virtual = ramp(mix["packed_double"], 0.06, 0.12) * ramp(mix["mul"], 0.03, 0.06) * ramp(xor + rot, 0.03, 0.06)
    virtual *= ramp(mix.anonymous, 0.5, 0.8)
    return {
        "arx": arx, "chi": chi, "engine": engine, "hard_aes": hard_aes, "mulxor": mulxor, "sbox": sbox, "bitslice": bitslice,
        "virtual": virtual,
    }  # fmt: skip


_TOLD = {
    "arx": ("rot", "xor", "add", "vadd"),
    "chi": ("xor", "andn", "vandn", "logic", "rot"),
    "engine": ("sha", "aes", "clmul"),
    "hard_aes": ("aes", "mul", "xor"),
    "mulxor": ("vmul", "vadd", "vxor"),
    "sbox": ("table_xor", "table_add", "shift"),
    "bitslice": ("vxor", "vlogic"),
    "virtual": ("packed_double", "mul", "xor", "rot"),
}


def _shares(mix: Mix, shape: str) -> str:
    return " ".join(f"{name} {mix[name]:.0%}" for name in _TOLD[shape] if mix[name] >= 0.005)


def input_rate(code: Code, previous: Code | None) -> float:
    """Bytes read for each second of CPU time, since ``previous`` when that is long enough ago, else over the whole life."""
    read, cpu = code.read_bytes, code.cpu_ns
    if previous is not None and cpu - previous.cpu_ns >= MIN_CPU_NS and read >= previous.read_bytes:
        read, cpu = read - previous.read_bytes, cpu - previous.cpu_ns
    return read * 1e9 / cpu if cpu >= MIN_CPU_NS else 0.0
