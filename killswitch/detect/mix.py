"""The mix of instructions in sampled machine code: which share of the executed instructions is of which class.

A sampled instruction pointer is an instruction boundary, so disassembly from there is right. About a dozen instructions
are taken from each address, and each address weighs as much as it has samples. The tables name classes, not meanings:
what a mix means is ``hashing``'s business.

capstone is imported when it is first needed, not with this module: it costs memory, and most hosts have no busy process.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from killswitch.detect import paths, products, unoptimised
from killswitch.detect.paths import Instruction
from killswitch.machinecode import CodeBlock

INSTRUCTIONS = 12  # from each address
MIN_SAMPLES = 8  # fewer say nothing
MAX_REFERENCES = 32  # addresses of data that are looked at
MIXES = frozenset({"rot", "xor", "sha", "aes", "clmul"})  # classes, of which code that hashes has one in each dozen

Classifier = Callable[[str, str], tuple[str, ...]]  # (mnemonic, operands) -> classes


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the instructions seen, 0..1 each. A class that is not named is 0."""

    shares: Mapping[str, float]
    samples: int
    anonymous: float  # share of the samples in code that no file backs (made at run time)
    rotations: Mapping[tuple[int, int], float]  # (width, by how many bits to the left) -> share of the instructions
    references: tuple[int, ...]  # addresses of data that the code uses, as far as the code itself says them
    mixing: float = 0.0  # share of the samples in code that mixes bits: what is not, is around the hash or beside it

    def __getitem__(self, name: str) -> float:
        return self.shares.get(name, 0.0)

    def if_anonymous(self) -> Mix:
        """The same, if no file backed any of the code."""
        return replace(self, anonymous=1.0)


def measure(machine: str, blocks: tuple[CodeBlock, ...]) -> Mix | None:
    """The mix of these blocks; None when the machine is not known or there is too little code to say anything."""
    engine = disassembler(machine)
    if engine is None:
        return None
    decode, classify = engine
    counts: defaultdict[str, float] = defaultdict(float)
    rotations: defaultdict[tuple[int, int], float] = defaultdict(float)
    shifts: defaultdict[tuple[str, int, int], float] = defaultdict(float)
    references: dict[int, int] = {}
    # What only keeps and finds variables, counted apart: of code that no optimiser has touched it is half and more.
    idle: defaultdict[str, float] = defaultdict(float)
    samples = anonymous = mixing = 0
    known = paths.Known(blocks)
    for block in blocks:
        listing = loop_around(decode, block) or paths.executed(decode, block, known, INSTRUCTIONS)
        if not listing:
            continue  # gone in the meantime, or no code
        samples += block.samples
        if block.anonymous:
            anonymous += block.samples
        weight = block.samples / len(listing)
        overhead = unoptimised.overhead(listing)
        counts["rot"] += weight * unoptimised.by_variable(listing)
        # Where the CPU waits in a loop that is unrolled, a dozen instructions end in the middle of a product.
        ahead = listing if len(listing) >= LOOP else list(decode(block.code + block.after, block.address, LOOP))
        counts["fnv"] += block.samples / len(ahead) * products.lanes_by_prime(ahead)
        mixes = False
        for i, (address, size, mnemonic, operands) in enumerate(listing):
            idle["overhead"] += weight * (i in overhead)
            classes = classify(mnemonic, operands)
            mixes = mixes or not MIXES.isdisjoint(classes)
            for name in classes:
                counts[name] += weight
                if i in overhead:
                    idle[name] += weight
                if name == "rot" and (by := rotated_by(mnemonic, operands)):
                    rotations[by] += weight
                elif name in ("left", "right") and operands.endswith(", cl"):
                    counts[f"{name} by variable"] += weight
                elif name in SHIFTS and (by := rotated_by(mnemonic, operands)):
                    shifts[name, *by] += weight
            if len(references) < MAX_REFERENCES and (data := refers_to(address + size, operands)):
                references[data] = block.samples
        mixing += block.samples * mixes
    if samples < MIN_SAMPLES:
        return None
    # A vector rotation is a shift to the left by n and one to the right by what is left of the width. Bit boards and
    # big numbers shift both ways, too, but not by such amounts.
    for (way, width, left), count in shifts.items():
        if way == "vleft" and (both := min(count, shifts.get(("vright", width, width - left), 0.0))):
            counts["vrot"] += both
            rotations[width, left] += both
    for turn, count in unoptimised.written_out(shifts).items():
        counts["rot"] += count
        rotations[turn] += count
    untouched = unoptimised.certainty(idle["overhead"] / samples)
    executed = samples - untouched * idle["overhead"]
    shares = {name: max(count - untouched * idle[name], 0.0) / executed for name, count in counts.items()}
    turned = {by: count / executed for by, count in rotations.items()}
    return Mix(shares, samples, anonymous / samples, turned, tuple(references), mixing / samples)


SHIFTS = ("vleft", "vright", "left", "right")
AHEAD = 64  # instructions that are searched for the end of a loop
LOOP = 20  # a loop with fewer is part of the one around it


def loop_around(decode: Callable[..., Any], block: CodeBlock) -> list[Instruction]:
    """The loop that a hot address lies in, where its surroundings were read; empty when there is none to be seen.

    A CPU that waits for memory is nearly always found at one instruction, the one behind the load: what is executed
    from there on is little of the loop, and memory-hard hashes are all like that. A jump back, somewhere ahead, tells where
    the loop begins, and that is an instruction's beginning for certain.
    """
    if not block.before:
        return []
    start = block.address - len(block.before)
    raw = block.before + block.code + block.after
    best: list[Instruction] = []
    for address, size, mnemonic, operands in decode(block.code + block.after, block.address, AHEAD):
        target = paths.target_of(mnemonic, operands)
        if target is None:
            if mnemonic.startswith("ret"):
                break
            continue
        if start <= target < block.address:
            best = list(decode(raw[target - start : address + size - start], target))
            if len(best) >= LOOP:
                break
    return best if len(best) >= LOOP else []


_WIDTH = re.compile(r"\b(?:r\d+d|e[a-ds][xip]|w\d+)\b")
_VECTOR_WIDTH = {"d": 32, "q": 64}
_RELATIVE = re.compile(r"\[rip ([+-]) 0x([0-9a-f]+)\]")
_ABSOLUTE = re.compile(r"\[\w+(?:\*[248])? \+ 0x([0-9a-f]{5,})\]")


def rotated_by(mnemonic: str, operands: str) -> tuple[int, int] | None:
    """(width, bits to the left) of a rotation by a constant; of a vector rotation, by its left shift."""
    last = operands.rpartition(", ")[2].removeprefix("ror ").removeprefix("#")
    try:
        by = int(last, 0) if last[:1].isdigit() else 1 if last == operands or mnemonic in ("rol1", "ror1") else -1
    except ValueError:
        return None
    if mnemonic.startswith(("vp", "ps")):
        width = _VECTOR_WIDTH.get(mnemonic[-1], 0)
        right = mnemonic.startswith("vpror")
    else:
        width = 32 if _WIDTH.search(operands) or operands.startswith("dword") else 64
        right = mnemonic not in ("rol", "shld", "shl", "sal", "lsl")
    if not width or not 0 < by < width:
        return None
    return width, width - by if right else by


def refers_to(following: int, operands: str) -> int:
    """The address of data that an operand names, relative to the ``following`` instruction or by itself; 0 = none."""
    if "0x" not in operands:
        return 0
    if found := _RELATIVE.search(operands):
        offset = int(found[2], 16)
        return following + (offset if found[1] == "+" else -offset)
    found = _ABSOLUTE.search(operands)
    return int(found[1], 16) if found else 0


@cache
def disassembler(machine: str) -> tuple[Any, Classifier] | None:
    """(disasm_lite, classifier) for what ``platform.machine()`` calls the machine; None if there is no table for it."""
    import capstone  # here on purpose: see above

    if machine in ("x86_64", "amd64"):
        return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm_lite, _x86
    if machine in ("aarch64", "arm64"):
        return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM).disasm_lite, _arm64
    return None


def _table(**classes: str) -> dict[str, tuple[str, ...]]:
    """``rot="rol ror"`` → {"rol": ("rot",), "ror": ("rot",)}; a mnemonic may be in more than one class."""
    out: dict[str, tuple[str, ...]] = {}
    for name, mnemonics in classes.items():
        for mnemonic in mnemonics.split():
            out[mnemonic] = (*out.get(mnemonic, ()), name)
    return out


# --- x86-64 -----------------------------------------------------------------------------------------------------------

_X86 = _table(
    rot="rol ror rorx shld shrd",
    xor="xor",
    shift="shl shr sar sal shlx shrx sarx",
    left="shl sal",
    right="shr",
    andn="not andn",
    logic="and or not andn",
    add="add sub lea inc dec neg",
    mul="mul imul mulx",
    big="mulx adcx adox adc sbb",
    jump="call ret cmp test",
)
# The vector forms, with or without AVX's leading v and whatever element width follows.
_X86_VECTOR: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), classes)
    for pattern, classes in (
        (r"v?sha(1|256|512)|vsm[34]", ("sha",)),
        (r"v?aes", ("aes",)),
        (r"v?pclmul", ("clmul",)),
        (r"v?pmadd52", ("big",)),
        (r"vpr[or][lr]|vpro[lr]", ("rot", "vector")),
        (r"v?pxor|v?xorp[sd]", ("xor", "vxor", "vector")),
        (r"vpternlog", ("xor", "vxor", "vlogic", "vector")),  # any function of three: in practice xor or choose
        (r"v?pandn|v?andnp[sd]", ("vandn", "vlogic", "vector")),
        (r"v?p(and|or)[dq]?$|v?(and|or)p[sd]", ("vlogic", "vector")),
        (r"v?psll|v?pslld", ("vleft", "vshift", "vector")),
        (r"v?ps[ra][la]", ("vright", "vshift", "vector")),
        (r"v?pshuf|v?palign|v?punpck|v?pblend|vperm|v?shufp|valign", ("shuffle", "vector")),
        (r"v?padd|v?psub", ("vadd", "vector")),
        (r"v?pmul", ("vmul", "vector")),
        (r"v?(add|sub|mul|div|sqrt|max|min)pd|v?cvt\w*2pd", ("fp", "packed_double")),
        (
            r"v?(add|sub|mul|div|sqrt|max|min|ucomi|comi|cmp\w*|round\w*|hadd|unpck\w*)[sp][sd]$|vf(n?m|m)(add|sub)",
            ("fp",),
        ),
        (r"v?cvt|f(ld|st|add|mul|div|sub|xch|sqrt|chs|abs|ild|ist|com|ucom)", ("fp",)),
        (r"j[a-z]+$", ("jump",)),
        (r"nop|endbr", ("filler",)),
    )
)
_ZERO_IDIOM = re.compile(r"^(v?p?xor(p[sd]|[dq])?|sub|v?psub[bwdq])$")
_ALL_ONES = (", 0xffffffff", ", 0xffffffffffffffff", ", -1")  # x ^ -1: how some write not
_INDEXED = re.compile(r"\[[^\]]*\*[248]")  # [base + index*scale + disp]: a look-up in a table


@cache
def _x86_class(mnemonic: str) -> tuple[str, ...]:
    plain = mnemonic.rpartition(" ")[2]  # without "rep", "lock", "notrack"
    if plain in _X86:
        return _X86[plain]
    return next((classes for pattern, classes in _X86_VECTOR if pattern.match(plain)), ())


def _x86(mnemonic: str, operands: str) -> tuple[str, ...]:
    classes = _x86_class(mnemonic)
    if not classes:
        return ()
    if mnemonic == "xor" and operands.endswith(_ALL_ONES):
        return _X86["not"]
    if _ZERO_IDIOM.match(mnemonic):
        last = operands.rpartition(", ")
        if last[2] == last[0].rpartition(", ")[2]:
            return ()  # xor eax, eax: how zero is written, no mixing
    if mnemonic == "add" and _INDEXED.search(operands):
        return (*classes, "table_add")
    if mnemonic == "xor" and _INDEXED.search(operands):
        return (*classes, "table_xor")
    return classes


# --- arm64 ------------------------------------------------------------------------------------------------------------

_ARM64 = _table(
    rot="ror extr rorv rax1 xar",
    xor="eor eon eor3 bcax rax1 xar",
    shift="lsl lsr asr lslv lsrv ubfx ubfiz sbfx bfi bfxil",
    left="lsl",
    right="lsr",
    andn="bic orn mvn eon bcax",
    logic="and orr bic orn mvn tst",
    add="add sub adds subs neg",
    mul="mul madd msub umulh smulh umull smull umaddl smaddl",
    big="adc adcs sbc sbcs umulh",
    sha="sha1c sha1p sha1m sha1h sha1su0 sha1su1 sha256h sha256h2 sha256su0 sha256su1 sha512h sha512h2 sha512su0 sha512su1 "
    "sm3ss1 sm3tt1a sm3tt1b sm3tt2a sm3tt2b sm3partw1 sm3partw2",
    aes="aese aesd aesmc aesimc sm4e sm4ekey",
    clmul="pmull pmull2",
    jump="b bl br blr ret cbz cbnz tbz tbnz cmp cmn tst ccmp",
    fp="fadd fsub fmul fdiv fsqrt fmadd fmsub fmla fmls fcmp fcvt fcvtzs scvtf ucvtf fmov fneg fabs",
    filler="nop hint bti",
)
_ARM64_VECTOR = _table(
    vxor="eor eor3 bcax", vandn="bic orn mvn bcax", vlogic="and orr bic orn bsl bit bif mvn not",
    vleft="shl sli ushl", vright="ushr sri sshr", vshift="shl ushr sri sli ushl sshr", vadd="add sub", vmul="mul mla umull umlal",
    shuffle="tbl tbx ext rev64 rev32 zip1 zip2 uzp1 uzp2 trn1 trn2", packed_double="fadd fsub fmul fdiv fsqrt scvtf",
)  # fmt: skip
_ARM64_ARRANGED = re.compile(r"^v\d+\.")


def _arm64(mnemonic: str, operands: str) -> tuple[str, ...]:
    plain = mnemonic.partition(".")[0]  # b.ne -> b
    if not _ARM64_ARRANGED.match(operands):
        classes = _ARM64.get(plain, ())
        if ", ror #" in operands and "rot" not in classes:
            return (*classes, "rot")  # the second operand comes rotated, at no cost
        return classes
    vector = tuple(c for c in _ARM64_VECTOR.get(plain, ()) if c != "packed_double" or ".2d" in operands)
    whole = tuple(c for c in _ARM64.get(plain, ()) if c in ("rot", "xor", "sha", "aes", "clmul", "fp"))
    return (*whole, *vector, "vector") if vector or whole else ()
