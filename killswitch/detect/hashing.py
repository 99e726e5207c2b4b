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
fnv        lanes of words multiplied by FNV's prime and xored, nothing else: Ethash's kin over their data set
========== ===========================================================================================================

The score is that of the best shape, less what speaks against it: floating point, time spent in the kernel, rotations by
just the amounts of a hash table's or a random number generator's function, and above all *input*. A checksum, a backup or
TLS moves as many bytes as it hashes; proof-of-work next to none. Signs that go with mining (round constants, huge pages,
code made at run time, a CPU's own registers open) raise a score that is there; they make none.
"""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.detect import constants
from killswitch.detect.intake import intake
from killswitch.detect.mix import Mix, measure
from killswitch.machinecode import Code, Surroundings

MB = 1_000_000
# Bytes moved for each second of CPU time. The checksums in use consume more than 100 MB in it; a miner a few KB, and a
# cracker that works from files some MB.
INPUT_NONE = 16 * MB
INPUT_ALL = 80 * MB
SIGNS_FROM = 0.25  # a score below this is not raised by any sign
SUSPECT = 0.2  # a mix below this needs no second look
HUGE = 2 << 20  # bytes: one huge page

# (width, bits to the left) of functions that hash tables and simulations use, none of them a proof of work but in a few
# (Cuckoo Cycle has SipHash). A miner's hash cannot keep to them: its own amounts are what it is.
TABLES: dict[str, frozenset[tuple[int, int]]] = {
    "SipHash": frozenset({(64, 13), (64, 16), (64, 17), (64, 21), (64, 32), (64, 51)}),
    "xxHash or Murmur": frozenset(
        {(64, n) for n in (31, 27, 23, 7, 1, 12, 18, 11, 33)} | {(32, n) for n in (13, 17, 15, 7, 12, 18, 1, 19, 16)}
    ),
    "Jenkins' lookup": frozenset({(32, n) for n in (4, 6, 8, 16, 19, 14, 11, 25, 24)}),
    "a small fast generator": frozenset({(32, 27), (32, 17), (64, 24), (64, 7), (64, 13), (64, 37)}),
    "xoroshiro or xoshiro": frozenset(
        {(64, n) for n in (24, 37, 16, 55, 14, 36, 49, 28, 21, 45, 7, 17, 23)} | {(32, n) for n in (26, 13, 9, 11, 7)}
    ),
    "neighbours on a board of bits": frozenset({(w, n) for w in (32, 64) for n in (1, w - 1)}),
}
MANY_AMOUNTS = 5
TABLE_SHARE = 0.95  # of all rotations by known amounts that must be of one of these
TABLE_LEAST = 2  # different amounts: one alone tells nothing …
GENERATORS = ("a small fast generator", "xoroshiro or xoshiro")  # … but here, where some have but one


@dataclass(frozen=True, slots=True)
class Score:
    value: float  # 0..1
    shape: str  # the best one, "" = none
    reasons: tuple[str, ...]  # for people
    algorithms: tuple[str, ...] = ()  # whose constants were found
    mixing: float = 0.0  # share of its time in code that mixes bits, 0..1: see ``mix.Mix``

    @property
    def told(self) -> str:
        """``hashing score 0.92: …``"""
        return f"hashing score {self.value:.2f}" + (f" ({', '.join(self.reasons)})" if self.reasons else "")


NOTHING = Score(0.0, "", ())


def score(code: Code, previous: Code | None = None, *, kernel_share: float = 0.0) -> Score:
    """Judge one reading. ``previous``: the reading before, of the same program; input is then counted since that one.

    ``kernel_share``: of the process's samples, 0..1. Code of a machine that we have no table for scores 0, and says so.
    """
    mix = measure(code.machine, code.blocks)
    if mix is None:
        return Score(0.0, "", (f"cannot be told from {len(code.blocks)} blocks of {code.machine} code",))
    shape, value = best(mix)
    if value < 0.05:
        return NOTHING
    reasons = [f"{shape}: {_shares(mix, shape)}"]
    algorithms: tuple[str, ...] = ()
    if value >= SIGNS_FROM:
        algorithms = constants.named([b.code for b in code.blocks], code.data)
        told = [f"constants of {name}" for name in algorithms[:2]] + signs(code.surroundings, mix)
        value = 1 - (1 - value) * 0.6 ** min(len(told), 2)
        reasons += told
    if shape in ("arx", "chi") and (table := hash_table(mix)):
        value *= 0.4
        reasons.append(f"but its rotations are those of {table}")
    taken = intake(code, previous)
    input_share = ramp(taken.rate, INPUT_NONE, INPUT_ALL)
    value *= (1 - 0.75 * input_share) * (1 - ramp(kernel_share, 0.6, 0.95))
    if input_share:
        reasons.append(f"but it moves {taken.rate / MB:.0f} MB per second of CPU time")
    if taken.decoy > INPUT_NONE:
        reasons.append(f"reads {taken.decoy / MB:.0f} MB per second of CPU time that can be no data")
    if kernel_share > 0.6:
        reasons.append(f"but {kernel_share:.0%} of its time is the kernel's")
    return Score(round(value, 3), shape, tuple(reasons), algorithms, mix.mixing)


def best(mix: Mix) -> tuple[str, float]:
    """The shape that fits best, and how well."""
    found = shapes(mix)
    shape = max(found, key=lambda name: found[name])
    return shape, found[shape]


def signs(around: Surroundings, mix: Mix) -> list[str]:
    """What goes with mining, and with other things as well."""
    found = []
    if mix.anonymous > 0.5:
        found.append("code made at run time")
    if around.huge_bytes >= HUGE:
        found.append(f"{around.huge_bytes >> 20} MiB in huge pages")
    if around.open_msr:
        found.append("the CPU's model-specific registers open")
    return found


def hash_table(mix: Mix) -> str:
    """Whose rotations they are, when they are nearly all those of one function of hash tables or simulations."""
    total, known = mix["rot"] + mix["vrot"], sum(mix.rotations.values())
    if mix["sha"] or mix["aes"] or not total:
        return ""
    if known < 0.1 * total:
        product = mix["mul"] >= 0.4 * total and mix["shift"] >= 0.6 * total and mix["xor"] < 1.2 * total
        return "PCG, by amounts out of a product" if product else ""
    for name, amounts in TABLES.items():
        if name in GENERATORS and various(mix) >= MANY_AMOUNTS:
            continue
        met = {by for by in mix.rotations if by in amounts}
        enough = len(met) >= (1 if name in GENERATORS else TABLE_LEAST)
        if enough and known >= 0.5 * total and sum(mix.rotations[by] for by in met) >= TABLE_SHARE * known:
            return name
    return ""


def various(mix: Mix) -> int:
    """How many different amounts it rotates by, those that are met once in a while left out."""
    least = 0.03 * sum(mix.rotations.values())
    return sum(share > least for share in mix.rotations.values())


def ramp(x: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, straight in between."""
    return min(1.0, max(0.0, (x - low) / (high - low)))


def shapes(mix: Mix) -> dict[str, float]:
    """How well the mix fits each shape, 0..1. The thresholds lie between measured loads: see docs/detection.md."""
    no_fp = 1 - ramp(mix["fp"], 0.06, 0.20)
    straight = 1 - ramp(mix["jump"], 0.14, 0.24)
    rot = mix["rot"] + mix["vrot"]
    xor, add = mix["xor"], mix["add"] + mix["vadd"]
    andn = mix["andn"] + mix["vandn"]
    # Many different amounts are a cryptographic hash's: less of them will do, as where its loops are left rolled.
    scale = 0.6 if various(mix) >= MANY_AMOUNTS else 1.0
    arx = ramp(rot, 0.012 * scale, 0.026 * scale) * ramp(rot + xor + 0.2 * add, 0.07 * scale, 0.12 * scale)
    arx *= ramp(add, 0.01, 0.03) * no_fp
    # Keccak's and-not; or and, or, not on their own, where lanes are kept complemented to save the nots.
    choose = max(ramp(andn, 0.02, 0.04), ramp(mix["logic"], 0.05, 0.10) * ramp(rot, 0.04, 0.08))
    chi = ramp(rot + mix["shift"], 0.006, 0.012) * choose * ramp(xor, 0.07, 0.11) * no_fp
    # Its loops left rolled: by one bit here, by amounts from a table there, with counters in between.
    by_one, by_table = mix.rotations.get((64, 1), 0.0), mix["rot"] - sum(mix.rotations.values())
    by_table = max(by_table, min(mix["left by variable"], mix["right by variable"]))  # written out, by -O0
    rolled = (
        ramp(by_one, 0.0015, 0.0035)
        * ramp(by_table, 0.0015, 0.0035)
        * ramp(andn, 0.010, 0.016)
        * ramp(xor, 0.03, 0.045)
    )
    chi = max(chi, rolled * no_fp)
    # Carry-less multiplication alone is a CRC; with AES it is GCM.
    # Rounds among many jumps are the look-ups of a hash table (Go's maps).
    aes = ramp(mix["aes"] + min(mix["clmul"], mix["aes"]), 0.01, 0.06) * (1 - ramp(mix["jump"], 0.18, 0.28))
    engine = max(ramp(mix["sha"], 0.005, 0.015), aes) * no_fp
    hard_aes = ramp(mix["aes"], 0.008, 0.016) * ramp(mix["mul"], 0.02, 0.04) * ramp(xor, 0.05, 0.08) * no_fp
    mulxor = ramp(mix["vmul"], 0.025, 0.045) * ramp(mix["vadd"], 0.03, 0.05) * ramp(mix["vxor"], 0.06, 0.10) * no_fp
    sbox = ramp(mix["table_xor"] + mix["table_add"], 0.05, 0.09) * ramp(mix["table_add"], 0.02, 0.04) * straight
    sbox *= ramp(mix["shift"], 0.05, 0.09) * ramp(xor, 0.09, 0.13)
    calm = 1 - ramp(mix["vadd"] + mix["vshift"] + mix["shuffle"] + mix["vmul"], 0.03, 0.10)
    bitslice = ramp(mix["vxor"], 0.05, 0.10) * ramp(mix["vlogic"], 0.04, 0.08) * calm
    virtual = ramp(mix["packed_double"], 0.06, 0.12) * ramp(mix["mul"], 0.03, 0.06) * ramp(xor + rot, 0.03, 0.06)
    virtual *= ramp(mix.anonymous, 0.5, 0.8)
    fnv = ramp(mix["fnv"], 0.010, 0.025) * ramp(xor, 0.05, 0.08) * no_fp * (1 - ramp(mix["jump"], 0.18, 0.28))
    return {
        "arx": arx, "chi": chi, "engine": engine, "hard_aes": hard_aes, "mulxor": mulxor, "sbox": sbox, "bitslice": bitslice,
        "virtual": virtual, "fnv": fnv,
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
    "fnv": ("fnv", "xor"),
}


def _shares(mix: Mix, shape: str) -> str:
    return " ".join(f"{name} {mix[name]:.0%}" for name in _TOLD[shape] if mix[name] >= 0.005)
